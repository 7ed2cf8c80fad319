package import PloopControl
internal import PloopFormat

/// An error as RFC 9457 has it.
package struct Problem: Error, Sendable {
  package var error: ServiceError
  package var allowed: [String] = []
  /// After which it may be tried again, where somebody may.
  package var retrySeconds: Int?
  /// Of what a range was asked for that it does not have.
  var sizeBytes: UInt64?
  /// What is somebody else's is said not to be there.
  var isForeign = false

  private static let denials: Set = [
    "unauthorized", "scope-missing", "devices-limited", "peer-not-allowed", "too-many-failures",
    "cross-site-request",
  ]

  /// Whether it is a refusal for who has asked.
  var isDenial: Bool { isForeign || Problem.denials.contains(error.code.rawValue) }

  /// Something of another caller's, which is as good as not there.
  static func foreign(_ code: String, _ detail: String) -> Problem {
    var problem = Problem(code, detail)
    problem.isForeign = true
    return problem
  }

  package init(_ code: String, _ detail: String, pointer: String? = nil) {
    error = ServiceError(ServiceError.Code(rawValue: code), detail, pointer: pointer)
  }

  package init(_ error: ServiceError) { self.error = error }

  package var status: Int { ProblemCatalogue.entry(error.code.rawValue).status }

  func body(instance: String, requestID: String) -> JSON {
    let code = error.code.rawValue
    let entry = ProblemCatalogue.entry(code)
    let known: [(String, JSON?)] = [
      ("type", .string("/problems/\(code)")), ("title", .string(entry.title)),
      ("status", .integer(Int64(entry.status))), ("code", .string(code)),
      ("detail", .string(error.detail)), ("instance", .string(instance)),
      ("request_id", .string(requestID)), ("errno", error.errno.map(JSON.string)),
      ("cause", error.cause.map(JSON.string)),
      ("remedy", .string(error.remedy ?? entry.remedy)),
      (
        "holder",
        error.holder.map(\.json)
      ),
      (
        "errors",
        error.pointer.map {
          .array([
            .members([
              "pointer": .string($0), "code": .string(code), "detail": .string(error.detail),
            ])
          ])
        }
      ),
    ]
    let facts = error.facts.sorted { $0.key < $1.key }.map { ($0.key, Optional(json($0.value))) }
    return .object(
      (known + facts).compactMap { pair in
        pair.1.map { JSON.Member(name: pair.0, value: $0) }
      })
  }

  private func json(_ fact: ServiceError.Fact) -> JSON {
    switch fact {
    case .number(let number): .count(number)
    case .text(let text): .string(text)
    case .clients(let clients): .array(clients.map(\.json))
    case .numbers(let numbers): .array(numbers.map(JSON.count))
    case .texts(let texts): .array(texts.map(JSON.string))
    }
  }
}

/// Every slug with its status, in one place. A slug never changes its meaning.
package enum ProblemCatalogue {
  package struct Entry: Sendable {
    package let status: Int
    package let title: String
    package let remedy: String
  }

  /// Unknown slugs would be our own mistake, and say so.
  package static func entry(_ slug: String) -> Entry {
    entries[slug] ?? Entry(status: 500, title: "Internal error", remedy: "report it with the log")
  }

  package static let entries: [String: Entry] = {
    var entries: [String: Entry] = [:]
    for (slug, status, title, remedy) in rows {
      entries[slug] = Entry(status: status, title: title, remedy: remedy)
    }
    for code in FormatError.Code.allCases where entries[code.rawValue] == nil {
      entries[code.rawValue] = Entry(
        status: 422, title: "The image cannot be used",
        remedy: "look at it with: ploopd image check")
    }
    return entries
  }()

  static let rows: [(slug: String, status: Int, title: String, remedy: String)] = [
    ("malformed-json", 400, "The body is no JSON", "send one JSON object in UTF-8"),
    ("nested-too-deeply", 400, "Too many levels", "send at most 32 levels"),
    ("too-many-items", 400, "The list is too long", "send at most 65,536 items in one request"),
    ("unknown-field", 400, "Unknown member", "leave it out or spell it as the contract does"),
    ("unknown-parameter", 400, "Unknown query parameter", "see the route's parameters"),
    ("invalid-value", 400, "A value of the wrong kind", "see the contract (openapi.yaml)"),
    ("duplicate-key", 400, "A member is there twice", "send each member once"),
    ("bad-request", 400, "The request is not valid HTTP", "use a client that follows RFC 9112"),
    ("unauthorized", 401, "Who are you", "send Authorization: Bearer with a token of this service"),
    ("scope-missing", 403, "Not allowed", "use credentials with the `scope` that is named"),
    ("devices-limited", 403, "Not with some devices only", "use credentials for all devices"),
    ("peer-not-allowed", 403, "Not a user of this service", "join the group ploopd or ploopd-read"),
    ("cross-site-request", 403, "Cross-site request", "call from the service's own origin"),
    ("path-outside-root", 403, "Path outside its root", "use a path beneath a configured root"),
    ("image-unreadable", 403, "The image cannot be read", "check its type and permissions"),
    ("not-found", 404, "No such route", "see openapi.yaml"),
    ("device-not-found", 404, "No such device", "GET /v1/devices lists them"),
    ("snapshot-not-found", 404, "No such snapshot", "GET the device's snapshots"),
    ("delta-not-found", 404, "No such delta", "GET the device's deltas"),
    ("export-not-found", 404, "No such export", "GET /v1/exports lists them"),
    ("target-not-found", 404, "No such target", "GET /v1/targets lists them"),
    ("backup-not-found", 404, "No such backup", "GET the target's backups"),
    ("image-not-found", 404, "No such image", "check root and path"),
    ("method-not-allowed", 405, "Method not allowed", "use one that Allow names"),
    ("device-exists", 409, "The device exists", "choose another id, or detach it first"),
    ("tracking-active", 409, "The device is tracked already", "DELETE its tracking first"),
    ("tracking-not-active", 404, "The device is not tracked", "POST its tracking"),
    ("push-backup-active", 409, "The device has a push backup", "stop it first"),
    ("push-backup-not-active", 404, "The device has no push backup", "POST one"),
    ("push-backup-uuid-mismatch", 409, "Another push backup", "GET the device's push-backup"),
    ("push-backup-incomplete", 409, "Not everything is confirmed", "copy the rest, or abort"),
    ("push-backup-expired", 410, "The push backup is over", "stop it, and begin another"),
    (
      "increment-not-possible", 409, "Nothing that an increment can build on",
      "take mode auto or full"
    ),
    ("cluster-released", 409, "The cluster is not frozen any more", "read before you confirm"),
    ("cluster-out-of-range", 422, "No such cluster", "see clusters.total of the device"),
    ("range-invalid", 416, "The range cannot be read", "Range: bytes=0-1048575"),
    ("export-exists", 409, "The export exists", "choose another name"),
    ("image-exists", 409, "The image exists", "choose another directory or id"),
    ("target-exists", 409, "The target exists", "choose another name and place"),
    ("target-in-use", 409, "A job works with the target", "wait for it, or cancel it"),
    ("target-not-empty", 409, "The target has backups", "DELETE them, or use backups=keep"),
    ("target-unreachable", 409, "The target cannot be used", "look at where it lies"),
    (
      "peer-refused", 409, "The other service refuses",
      "`cause` is its own code, where it has given one"
    ),
    ("target-unsuitable", 409, "The target is of another type", "begin another job"),
    (
      "delta-damaged", 409, "A delta is not what it was when it was hashed",
      "restore it from a backup"
    ),
    ("image-not-orphaned", 409, "Somebody needs the file", "see `detail` and `holder`"),
    (
      "repair-plan-outdated", 409, "The images are not those of the plan",
      "check them again, and read the new plan"
    ),
    ("backup-corrupt", 409, "The backup is not what was stored", "restore another point"),
    ("backup-incomplete", 409, "The backup is not whole", "restore another point"),
    ("backup-mismatch", 409, "The backup does not fit", "see `detail`"),
    (
      "backup-has-dependents", 409, "Other backups build on it",
      "DELETE them first, or use cascade=true"
    ),
    ("checkpoint-not-found", 404, "No such checkpoint", "GET the device's checkpoints"),
    ("checkpoint-exists", 409, "The checkpoint exists", "choose another name, or DELETE it first"),
    (
      "checkpoint-in-use", 409, "The checkpoint is needed",
      "end what needs it, the holder, first"
    ),
    (
      "checkpoint-unsupported", 422, "The disk cannot have this checkpoint",
      "use a larger granularity, or DELETE old checkpoints"
    ),
    ("snapshot-exists", 409, "The snapshot exists", "choose another GUID"),
    ("snapshot-has-branches", 409, "Several states build on the snapshot", "delete them first"),
    (
      "snapshot-not-possible", 409, "The snapshot does not allow it",
      "look at its place in the tree"
    ),
    ("snapshot-protected", 409, "The snapshot is protected", "PATCH it: {\"protected\":false}"),
    ("too-many-jobs", 409, "Too many jobs", "wait for some, or cancel them"),
    ("job-not-found", 404, "No such job", "GET /v1/jobs lists them"),
    ("job-active", 409, "The job is not over", "cancel it, or wait for it"),
    ("job-finished", 409, "The job is over", "make a new one, or POST its retry"),
    ("job-not-failed", 409, "The job has not failed", "only a failed or cancelled one is retried"),
    ("job-uncancellable", 409, "The job cannot be cancelled any more", "wait for its end"),
    ("dependency-missing", 422, "A job to come after does not exist", "see `after`"),
    ("dependency-failed", 409, "A job that had to succeed first did not", "retry both"),
    ("nothing-below-top", 409, "Nothing below the top", "GET the device's snapshots"),
    ("flip-overlap", 409, "The delta has other clusters", "see what another program did"),
    ("not-suspended", 409, "The disk is not suspended", "PATCH it: {\"suspended\":true}"),
    (
      "resume-not-prohibited", 409, "The disk may be resumed by anybody",
      "PATCH it: {\"noresume\":true}"
    ),
    ("nothing-to-merge", 409, "Nothing to merge", "GET the device's snapshots"),
    ("descriptor-exists", 409, "Another descriptor is there", "attach by it, or move it away"),
    ("device-busy", 409, "The device is busy", "try again when its operation has ended"),
    ("device-running", 409, "The disk is in use", "PATCH it: {\"suspended\":true}"),
    (
      "index-mismatch", 409, "The file's index says something else",
      "make it durable in the file first"
    ),
    ("device-in-use", 409, "Clients are connected", "disconnect them, or use mode=hard"),
    ("export-in-use", 409, "Clients are connected", "disconnect them, or use mode=hard"),
    ("writer-exists", 409, "The device has a writable export", "ask for shared_writers"),
    ("device-failed", 409, "The device has failed", "detach it, then attach it with repair"),
    ("device-read-only", 409, "The device is read-only", "attach it for writing"),
    ("resume-prohibited", 409, "Resuming is prohibited", "PATCH it: {\"noresume\":false}"),
    ("image-unclean", 409, "The image was not closed", "attach with \"repair\":\"safe\""),
    (
      "image-index-tail-set", 409, "Slots behind the disk are set",
      "attach with \"repair\":\"safe\""
    ),
    ("image-in-use", 409, "The image is in use", "end what has it open"),
    ("image-has-children", 409, "Other deltas build on the image", "attach the chain's top"),
    ("image-full", 409, "The image holds no more clusters", "take a snapshot, or discard some"),
    ("insufficient-space", 409, "Not enough space", "free some, or use another root"),
    (
      "idempotency-key-in-use", 409, "The request is being served", "wait, then send it again"
    ),
    ("events-expired", 410, "The events are gone", "read everything anew, then go on from now"),
    ("precondition-failed", 412, "The resource has changed", "read it again"),
    ("body-too-large", 413, "The body is too large", "at most 1 MiB"),
    ("target-too-long", 414, "The target is too long", "send at most 8 KiB of path and query"),
    ("unsupported-media-type", 415, "Not JSON", "set Content-Type: application/json"),
    ("wrong-host", 421, "Wrong host", "use localhost, 127.0.0.1, [::1] or a name of `http-host`"),
    ("too-many-deltas", 422, "Too many deltas", "merge some: 255 read-only ones are the most"),
    ("too-many-devices", 409, "Too many devices", "detach some"),
    ("descriptor-invalid", 422, "The descriptor cannot be used", "correct it, or attach `deltas`"),
    ("image-invalid", 422, "The image cannot be used", "see `cause`"),
    ("raw-not-allowed", 422, "A raw delta has no index", "see the delta's format"),
    ("delta-is-top", 422, "The delta is the top", "name one below it"),
    ("merge-direction-invalid", 422, "Not in that direction", "see the delta's level"),
    ("cluster-not-mapped", 422, "No delta has the cluster", "leave it out"),
    ("image-not-identical", 422, "The image holds something else", "copy the delta anew"),
    ("raw-not-base", 422, "Raw above the base", "only the oldest delta can be raw"),
    ("shrink-not-supported", 409, "A disk cannot become smaller", "name at least its present size"),
    ("size-misaligned", 422, "The size is no whole number of clusters", "use one of `nearest`"),
    ("size-too-large", 422, "The disk is too large", "use larger clusters"),
    ("image-corrupt", 422, "The image is corrupt", "look at it with: ploopd image check"),
    (
      "idempotency-key-reused", 422, "The key belongs to another request",
      "use a new key for each request"
    ),
    ("too-many-failures", 429, "Too many wrong credentials", "wait, and use right ones"),
    ("too-many-connections", 429, "Too many connections", "use those that there are"),
    ("header-too-large", 431, "The header is too large", "send at most 100 headers, 24 KiB"),
    ("too-many-watchers", 429, "Too many callers wait", "try again, or wait for fewer things"),
    ("io-error", 500, "Input or output failed", "look at the host's disk and log"),
    ("internal", 500, "Internal error", "report it with the log"),
    ("not-ready", 503, "Not ready", "wait for /readyz"),
    ("drain-timeout", 503, "Requests did not end in time", "try again; nothing was changed"),
    ("shutting-down", 503, "Shutting down", "try again after the restart"),
  ]
}
