/// Why a job's work stops before it is done.
enum JobStop: Error {
  /// Somebody wants it to end; what was done stays done, and the chain is valid.
  case cancelled
  /// The service, or the device, goes away; it is begun again later.
  case interrupted
  case failed(ServiceError)
}

/// Whether a type of work is done on a device that is attached.
enum JobDevice {
  case one, none
  /// As the request has it.
  case oneOrNone
}

/// One type of long work. It is made anew for each attempt, from the job's parameters.
///
/// The work is one piece of code from top to bottom, on a thread of its own. It consists of steps that
/// may be done again: after a crash it is begun from the start, and skips what is done.
protocol QueuedWork: Sendable {
  static var type: String { get }
  static var phases: [String] { get }
  /// Whether it goes on where it was after it was interrupted, or begins anew.
  static var isResumable: Bool { get }
  /// Whether it waits while its disk is suspended, and does nothing with it; else it is interrupted.
  static var waitsForResume: Bool { get }
  /// Whether what is left of it behind its commit point needs no disk that serves: the disk is suspended by then,
  /// or gone.
  static var endsWithoutDisk: Bool { get }
  /// The parameters that may be changed while it waits or runs (``JobControl/parameters``).
  static var changeable: Set<String> { get }
  /// Whether its request names a device: an attached one, which nobody else changes meanwhile.
  static var device: JobDevice { get }
  /// Whether it can be refused since there is no room for it.
  static var canLackRoom: Bool { get }
  /// Whether it goes on where it was, as a job with these parameters.
  static func isResumable(with parameters: [String: JobValue]) -> Bool
  static func device(with parameters: [String: JobValue]) -> JobDevice

  /// - Parameter device: that the request names; as ``device(with:)`` allows. Else it means nothing.
  /// - Throws: `invalid-value` or `unknown-field` with a pointer beneath `/params`.
  static func make(
    _ parameters: [String: JobValue], device: String?
  ) throws(ServiceError) -> Self

  /// The id of a device that it makes: nobody else takes it while the job is open.
  var newDevice: String? { get }

  /// What a place is called that is the job's own and may not answer for long, as a target.
  var ownPlace: String? { get }

  /// The same work, knowing what has to be looked at on a target before it can be planned or accepted: that may
  /// take long, and nobody else waits for it.
  ///
  /// - Parameter isPlanned: whether it is to be planned; else it is to be accepted.
  func surveyed(_ service: Service, isPlanned: Bool) throws(ServiceError) -> Self

  /// The parameters with everything said that was left open: what is meant at the moment of the
  /// request stays meant. May write the disk's first descriptor.
  ///
  /// - Throws: what a request for the job is refused with.
  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue]

  /// What is to be done, found out without doing any of it.
  ///
  /// - Throws: what a request for the job is refused with.
  func plan(_ service: Service) throws(ServiceError) -> JobPlan

  /// Does it.
  ///
  /// - Returns: the job's result.
  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue]

  /// Removes what interrupted attempts have left. Called when the job is cancelled while it does not run, on a
  /// thread that may wait.
  func discard(job: String, _ service: Service)
}

extension QueuedWork {
  static func isResumable(with parameters: [String: JobValue]) -> Bool { isResumable }
  static func device(with parameters: [String: JobValue]) -> JobDevice { device }
  static var waitsForResume: Bool { false }
  static var endsWithoutDisk: Bool { false }
  static var canLackRoom: Bool { true }
  static var changeable: Set<String> { [] }
  var newDevice: String? { nil }
  var ownPlace: String? { nil }
  func surveyed(_ service: Service, isPlanned: Bool) throws(ServiceError) -> Self { self }
  func discard(job: String, _ service: Service) {}
}

/// Long work on a device.
protocol JobWork: QueuedWork {
  init(_ parameters: [String: JobValue], device: String) throws(ServiceError)
}

extension JobWork {
  static var device: JobDevice { .one }

  static func make(
    _ parameters: [String: JobValue], device: String?
  ) throws(ServiceError) -> Self {
    guard let device else {
      throw ServiceError(.invalidValue, "device: is missing", pointer: "/device")
    }
    return try Self(parameters, device: device)
  }
}

/// The types of work that there are.
struct JobRegistry: Sendable {
  private let types: [String: any QueuedWork.Type]

  init(_ types: [any QueuedWork.Type]) {
    self.types = Dictionary(types.map { ($0.type, $0) }, uniquingKeysWith: { first, _ in first })
  }

  /// Parameters that jobs of some type let change while they run.
  var changeable: Set<String> { types.values.reduce(into: []) { $0.formUnion($1.changeable) } }

  static let standard = JobRegistry([
    MergeJob.self, DeleteSnapshotJob.self, HashJob.self, ResizeJob.self, BackupJob.self,
    RestoreJob.self, VerifyJob.self, CheckJob.self, CleanJob.self, CloneJob.self, ImportJob.self,
    CompactJob.self, PruneJob.self, ExportJob.self, MigrateJob.self, CopyUpJob.self,
  ])

  var names: [String] { types.keys.sorted() }

  /// - Throws: `invalid-value` for a type that there is not.
  func type(_ name: String) throws(ServiceError) -> any QueuedWork.Type {
    guard let type = types[name] else {
      throw ServiceError(
        .invalidValue, "there is no type of job \(name.prefix(80))",
        remedy: "the types are: \(names.joined(separator: ", "))", pointer: "/type")
    }
    return type
  }

  /// What a request asks for, as far as it says it itself.
  ///
  /// - Throws: `invalid-value` or `unknown-field` for what the contract does not allow; `value-impossible`.
  func work(_ request: JobRequest) throws(ServiceError) -> any QueuedWork {
    let type = try type(request.type)
    let device = type.device(with: request.parameters)
    guard device == .oneOrNone || (device == .one) == (request.device != nil) else {
      let words = device == .one ? "is missing" : "none is expected of the type \(request.type)"
      throw ServiceError(.invalidValue, "device: \(words)", pointer: "/device")
    }
    return try type.make(request.parameters, device: request.device)
  }
}

/// Takes the parameters of a job apart by name.
struct JobParameters {
  private var rest: [String: JobValue]
  private let path: [String]

  /// - Parameter path: where in the request they stand.
  init(_ parameters: [String: JobValue], at path: [String] = ["params"]) {
    rest = parameters
    self.path = path
  }

  /// - Parameter place: of an object among the parameters `parent`.
  init(_ parameters: [String: JobValue], at place: [String], of parent: JobParameters) {
    self.init(parameters, at: parent.path + place)
  }

  mutating func text(_ name: String) throws(ServiceError) -> String? {
    switch rest.removeValue(forKey: name) {
    case nil: return nil
    case .text(let text)?: return text
    default: throw wrong(name, "a string is expected")
    }
  }

  /// What something may be called (``Names``).
  mutating func name(_ name: String) throws(ServiceError) -> String? {
    guard let text = try text(name) else { return nil }
    try Names.require(text, as: name, pointer: pointer(name))
    return text
  }

  mutating func number(_ name: String) throws(ServiceError) -> UInt64? {
    switch rest.removeValue(forKey: name) {
    case nil: return nil
    case .number(let number)?: return number
    default: throw wrong(name, "a whole number is expected")
    }
  }

  mutating func flag(_ name: String) throws(ServiceError) -> Bool? {
    switch rest.removeValue(forKey: name) {
    case nil: return nil
    case .flag(let flag)?: return flag
    default: throw wrong(name, "true or false is expected")
    }
  }

  /// A list of names, each once.
  mutating func texts(_ name: String) throws(ServiceError) -> [String]? {
    switch rest.removeValue(forKey: name) {
    case nil: return nil
    case .list(let items)?:
      let texts = items.compactMap { item -> String? in
        if case .text(let text) = item { text } else { nil }
      }
      guard texts.count == items.count, Set(texts).count == texts.count else {
        throw wrong(name, "strings are expected, each once")
      }
      return texts
    default: throw wrong(name, "a list is expected")
    }
  }

  mutating func object(_ name: String) throws(ServiceError) -> JobParameters? {
    switch rest.removeValue(forKey: name) {
    case nil: return nil
    case .object(let members)?: return JobParameters(members, at: path + [name])
    default: throw wrong(name, "an object is expected")
    }
  }

  mutating func list(_ name: String) throws(ServiceError) -> [JobValue]? {
    switch rest.removeValue(forKey: name) {
    case nil: return nil
    case .list(let items)?: return items
    default: throw wrong(name, "a list is expected")
    }
  }

  mutating func requiredText(_ name: String) throws(ServiceError) -> String {
    guard let text = try text(name) else { throw wrong(name, "is missing") }
    return text
  }

  mutating func requiredName(_ name: String) throws(ServiceError) -> String {
    guard let text = try self.name(name) else { throw wrong(name, "is missing") }
    return text
  }

  func wrong(_ name: String, _ detail: String) -> ServiceError {
    ServiceError(.invalidValue, "\(name): \(detail)", pointer: pointer(name))
  }

  /// What the contract allows, and cannot be.
  func impossible(_ name: String, _ detail: String) -> ServiceError {
    ServiceError(.valueImpossible, "\(name): \(detail)", pointer: pointer(name))
  }

  /// Where they stand in the request.
  var place: String { ServiceError.pointer(path) }

  /// To a member, in the request.
  func pointer(_ name: String) -> String { ServiceError.pointer(path + [name]) }

  /// Call when everything known has been taken.
  func finish() throws(ServiceError) {
    guard let name = rest.keys.sorted().first else { return }
    throw ServiceError(
      ServiceError.Code(rawValue: "unknown-field"), "unknown parameter \(name)",
      pointer: pointer(name))
  }
}
