/// Why a job's work stops before it is done.
enum JobStop: Error {
  /// Somebody wants it to end; what was done stays done, and the chain is valid.
  case cancelled
  /// The service, or the device, goes away; it is begun again later.
  case interrupted
  case failed(ServiceError)
}

/// One type of long work on a device. It is made anew for each attempt, from the job's parameters.
///
/// The work is one piece of code from top to bottom, on a thread of its own. It consists of steps that
/// may be done again: after a crash it is begun from the start, and skips what is done.
protocol JobWork: Sendable {
  static var type: String { get }
  static var phases: [String] { get }
  /// Whether it goes on where it was after it was interrupted, or begins anew.
  static var isResumable: Bool { get }

  /// - Throws: `invalid-value` or `unknown-field` with a pointer beneath `/params`.
  init(_ parameters: [String: JobValue], device: String) throws(ServiceError)

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
}

/// The types of work that there are.
struct JobRegistry: Sendable {
  private let types: [String: any JobWork.Type]

  init(_ types: [any JobWork.Type]) {
    self.types = Dictionary(types.map { ($0.type, $0) }, uniquingKeysWith: { first, _ in first })
  }

  static let standard = JobRegistry([
    MergeJob.self, DeleteSnapshotJob.self, HashJob.self, ResizeJob.self,
  ])

  var names: [String] { types.keys.sorted() }

  /// - Throws: `invalid-value` for a type that there is not.
  func type(_ name: String) throws(ServiceError) -> any JobWork.Type {
    guard let type = types[name] else {
      throw ServiceError(
        .invalidValue, "there is no type of job \(name.prefix(80))",
        remedy: "the types are: \(names.joined(separator: ", "))", pointer: "/type")
    }
    return type
  }
}

/// Takes the parameters of a job apart by name.
struct JobParameters {
  private var rest: [String: JobValue]

  init(_ parameters: [String: JobValue]) { rest = parameters }

  mutating func text(_ name: String) throws(ServiceError) -> String? {
    switch rest.removeValue(forKey: name) {
    case nil: return nil
    case .text(let text)?: return text
    default: throw wrong(name, "a string is expected")
    }
  }

  mutating func number(_ name: String) throws(ServiceError) -> UInt64? {
    switch rest.removeValue(forKey: name) {
    case nil: return nil
    case .number(let number)?: return number
    default: throw wrong(name, "a whole number is expected")
    }
  }

  func wrong(_ name: String, _ detail: String) -> ServiceError {
    ServiceError(
      .invalidValue, "\(name): \(detail)", pointer: ServiceError.pointer(["params", name]))
  }

  /// Call when everything known has been taken.
  func finish() throws(ServiceError) {
    guard let name = rest.keys.sorted().first else { return }
    throw ServiceError(
      ServiceError.Code(rawValue: "unknown-field"), "unknown parameter \(name)",
      pointer: ServiceError.pointer(["params", name]))
  }
}
