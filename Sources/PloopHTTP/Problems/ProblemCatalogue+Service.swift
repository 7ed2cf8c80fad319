extension ProblemCatalogue {
  /// What the service cannot do just now.
  static let service: [Entry] = [
    Entry(
      "too-many-failures", 429, "Too many wrong credentials",
      cause: "Too many wrong credentials came from this address.",
      remedy: "wait, and use right ones"),
    Entry(
      "too-many-connections", 429, "Too many connections",
      cause: """
        There are as many connections as may be, in all (512), from this TCP address (64), or \
        from this user of the Unix socket who is in neither group (16). The connection ends.
        """,
      remedy: "use those that there are"),
    Entry(
      "too-many-watchers", 429, "Too many callers wait",
      cause: "As many callers wait for changes as may; see `limits`.",
      remedy: "try again, or wait for fewer things"),
    Entry(
      "io-error", 500, "Input or output failed",
      cause: "The host's disk failed.",
      remedy: "look at the host's disk and log"),
    internalError,
    Entry(
      "not-ready", 503, "Not ready",
      cause: "Devices are still being brought back.",
      remedy: "wait for /readyz"),
    Entry(
      "fleet-unreachable", 503, "This node has no lease",
      cause: "etcd does not answer, or this node's lease is over: others may have its devices.",
      remedy: "wait until etcd answers; GET /v1/nodes says what is wrong"),
    Entry(
      "drain-timeout", 503, "Requests did not end in time",
      cause: "Requests in flight did not end in time; nothing was changed.",
      remedy: "try again; nothing was changed"),
    Entry(
      "shutting-down", 503, "Shutting down",
      cause: "The service is being stopped.",
      remedy: "try again after the restart"),
  ]
}
