internal import Glibc

/// A system call that failed: which, on what, and why.
package struct IOError: Error, Sendable, CustomStringConvertible {
  package let call: StaticString
  package let path: String
  package let code: Int32
  package let offset: UInt64?

  package init(_ call: StaticString, path: String, code: Int32, offset: UInt64? = nil) {
    self.call = call
    self.path = path
    self.code = code
    self.offset = offset
  }

  /// The error of the call that has just failed on this thread.
  package static func last(_ call: StaticString, _ path: String, offset: UInt64? = nil) -> IOError {
    IOError(call, path: path, code: errno, offset: offset)
  }

  package var isOutOfSpace: Bool { code == ENOSPC || code == EDQUOT }
  /// The file can have no byte there, however much room there is.
  package var isTooLarge: Bool { code == EFBIG }
  package var isUnsupported: Bool { code == EOPNOTSUPP || code == ENOSYS }

  package var description: String {
    let place = offset.map { " at byte \($0)" } ?? ""
    return "\(call) of \(path)\(place): \(IOError.text(of: code))"
  }

  /// The system's words for an error number, with its name where it is a common one.
  package static func text(of code: Int32) -> String {
    var words = [CChar](repeating: 0, count: 128)
    guard strerror_r(code, &words, words.count) == 0 else { return "error \(code)" }
    let text = words.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
    return String(decoding: text, as: UTF8.self)
  }
}
