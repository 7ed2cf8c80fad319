/// What the program ends with: a kind of problem, for scripts (docs/ploopctl.md has the table).
enum Outcome: Int32, CaseIterable, Sendable {
  case ok = 0
  /// A fault of the service, or an answer that is not understood.
  case other = 1
  /// The command line is wrong, or the service does not take a value.
  case usage = 2
  case notFound = 3
  /// Something is in the way: it exists, is in use, or there is no room.
  case conflict = 4
  /// Who asks may not do this.
  case refused = 5
  /// There is no answer, or the service says that it is coming or going.
  case unreachable = 6
  case jobFailed = 7
  case jobCancelled = 8
  /// The question was answered with no, or nobody could be asked.
  case declined = 9
  /// Ctrl-C.
  case interrupted = 130

  /// - Parameter httpStatus: of an answer that is no success.
  init(httpStatus: Int) {
    self =
      switch httpStatus {
      case 401, 403, 421: .refused
      case 404, 410: .notFound
      case 409, 412, 429: .conflict
      case 503: .unreachable
      case 400..<500: .usage
      default: .other
      }
  }
}
