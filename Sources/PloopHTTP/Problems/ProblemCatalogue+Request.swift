extension ProblemCatalogue {
  /// Requests that are wrong for whatever they are about, or not for their sender.
  static let requests: [Entry] = [
    Entry(
      "malformed-json", 400, "The body is no JSON",
      cause: """
        The body is not one JSON value in UTF-8, is nested more than 32 deep, or has a list of \
        more than 65,536 items.
        """,
      remedy: "send one JSON object in UTF-8"),
    Entry(
      "nested-too-deeply", 400, "Too many levels",
      cause: "The body has more than 32 levels.",
      remedy: "send at most 32 levels"),
    Entry(
      "too-many-items", 400, "The list is too long",
      cause: "A list in the body has more than 65,536 items.",
      remedy: "send at most 65,536 items in one request"),
    Entry(
      "unknown-field", 400, "Unknown member",
      cause: "A member that the route does not know.",
      remedy: "leave it out or spell it as the contract does"),
    Entry(
      "unknown-parameter", 400, "Unknown query parameter",
      cause: "A query parameter that the route does not know.",
      remedy: "see the route's parameters"),
    Entry(
      "invalid-value", 400, "A value of the wrong kind",
      cause: "A member, parameter or header has a value of the wrong kind, or is missing.",
      remedy: "see the contract (openapi.yaml)"),
    Entry(
      "duplicate-key", 400, "A member is there twice",
      cause: "A member is there twice.",
      remedy: "send each member once"),
    Entry(
      "bad-request", 400, "The request is not valid HTTP",
      cause: """
        The request is not valid HTTP: two `Host` headers or none, two ways to say where the \
        body ends, a bad escape in the path.
        """,
      remedy: "use a client that follows RFC 9112"),
    Entry(
      "unauthorized", 401, "Who are you",
      cause: """
        The request shows no token, or none that may come from there now; `detail` says more.
        """,
      remedy: "send Authorization: Bearer with a token of this service"),
    Entry(
      "scope-missing", 403, "Not allowed",
      cause: "The caller may not do this: it needs the scope that `scope` names.",
      remedy: "use credentials with the `scope` that is named"),
    Entry(
      "devices-limited", 403, "Not with some devices only",
      cause: "The token is for some devices, and this reaches beyond them.",
      remedy: "use credentials for all devices"),
    Entry(
      "peer-not-allowed", 403, "Not a user of this service",
      cause: "The user at the other end of the Unix socket is in neither group.",
      remedy: "join the group ploopd or ploopd-read"),
    Entry(
      "cross-site-request", 403, "Cross-site request",
      cause: "A web page of another origin asks.",
      remedy: "call from the service's own origin"),
    Entry(
      "path-outside-root", 403, "Path outside its root",
      cause: "The path leaves its root, or goes through a link.",
      remedy: "use a path beneath a configured root"),
    Entry(
      "image-unreadable", 403, "The image cannot be read",
      cause: "The file is not a regular one, or its permissions forbid it.",
      remedy: "check its type and permissions"),
    Entry(
      "method-not-allowed", 405, "Method not allowed",
      cause: "The path has other methods.",
      remedy: "use one that Allow names"),
    Entry(
      "range-invalid", 416, "The range cannot be read",
      cause: "`Range` is missing, beyond the disk, or more than 16 MiB.",
      remedy: "Range: bytes=0-1048575"),
    Entry(
      "body-too-large", 413, "The body is too large",
      cause: "The body has more than 1 MiB.",
      remedy: "at most 1 MiB"),
    Entry(
      "target-too-long", 414, "The target is too long",
      cause: "Path and query have more than 8 KiB.",
      remedy: "send at most 8 KiB of path and query"),
    Entry(
      "unsupported-media-type", 415, "Not JSON",
      cause: "The body is not said to be JSON.",
      remedy: "set Content-Type: application/json"),
    Entry(
      "wrong-host", 421, "Wrong host",
      cause: "`Host` is not a name of this service.",
      remedy: "use localhost, 127.0.0.1, [::1] or a name of `http-host`"),
    Entry(
      "header-too-large", 431, "The header is too large",
      cause: "There are more than 100 headers, or more than 24 KiB of them.",
      remedy: "send at most 100 headers, 24 KiB"),
  ]
}
