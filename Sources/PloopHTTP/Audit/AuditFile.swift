internal import Glibc
internal import PloopIO
internal import PloopJSON

/// The file of an audit log, and the small one that says where its chain has come to (the head). One thread
/// writes both.
///
/// The head is written behind the line that it is about, and a crash may keep the one without the other. Where
/// the line has come to the disk alone it counts; where the head has, the next line says which ones are missing.
final class AuditFile {
  /// What is to be told by the next line that can be written.
  struct Debt: Equatable {
    /// Lines that could not be written.
    var lost: UInt64 = 0
    /// Refusals that were not written, so that nobody fills the disk with them.
    var suppressed: UInt64 = 0
  }

  private struct Head {
    var chain: AuditChain
    var debt: Debt
    /// Nobody has closed the log.
    var isOpen: Bool
  }

  /// Which file it is, whatever its name.
  private struct FileKey: Equatable {
    let device: UInt64
    let inode: UInt64

    init(_ status: stat) {
      device = UInt64(status.st_dev)
      inode = UInt64(status.st_ino)
    }
  }

  /// Files are read from behind in pieces of that size; a line has less.
  private static let mostLineBytes = 64 << 10

  private let path: String
  private let headPath: String
  private let complain: @Sendable (String) -> Void
  /// -1 where the file could not be opened.
  private var descriptor: Int32 = -1
  private var key: FileKey?
  private var chain = AuditChain.beginning
  private(set) var debt = Debt()
  /// What the first line of this life says besides: how the one before has ended.
  private var beginning: [JSON.Member] = []

  /// Goes on behind what the file has, or behind what it had when it was moved away.
  init(path: String, headPath: String, complain: @escaping @Sendable (String) -> Void) {
    self.path = path
    self.headPath = headPath
    self.complain = complain
    guard let head = AuditFile.head(headPath) else { return }
    chain = head.chain
    debt = head.debt
    if head.isOpen { beginning = [.init(name: "event", value: .string("crash"))] }
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// - Throws: where the file cannot be opened; it is tried again with the next line.
  func begin() throws(IOError) {
    try open(isFirst: true)
    // A crash is told at once, not when somebody changes something.
    if !beginning.isEmpty { try add([]) }
    keepHead(isOpen: true)
  }

  /// Writes one line. What cannot be written is remembered, and told by the next one.
  func add(_ members: [JSON.Member], suppressed: UInt64 = 0, lost: UInt64 = 0) throws(IOError) {
    debt.suppressed &+= suppressed
    debt.lost &+= lost
    do throws(IOError) {
      try openAgainIfMoved()
      var members = beginning + members
      for (name, count) in [("lost", debt.lost), ("suppressed", debt.suppressed)] where count > 0 {
        members.append(.init(name: name, value: .count(count)))
      }
      let (next, line) = chain.adding(members)
      try write(line + [UInt8(ascii: "\n")])
      chain = next
      debt = Debt()
      beginning = []
    } catch {
      if !members.isEmpty { debt.lost &+= 1 }
      keepHead(isOpen: true)
      throw error
    }
    keepHead(isOpen: true)
  }

  /// The lines are on the disk when this returns, as far as it can be had.
  func sync() { if descriptor >= 0 { _ = fdatasync(descriptor) } }

  /// Nobody writes any more: the next life has nothing to tell.
  func end(suppressed: UInt64, lost: UInt64) {
    debt.suppressed &+= suppressed
    debt.lost &+= lost
    sync()
    keepHead(isOpen: false)
  }

  // MARK: The file

  /// Somebody who rotates logs gives the file another name: the next line is in a new one.
  private func openAgainIfMoved() throws(IOError) {
    var status = stat()
    if descriptor >= 0, stat(path, &status) == 0, key == FileKey(status) { return }
    if descriptor >= 0 { close(descriptor) }
    descriptor = -1
    try open(isFirst: false)
  }

  private func open(isFirst: Bool) throws(IOError) {
    let descriptor = Glibc.open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0o640)
    guard descriptor >= 0 else { throw .last("open", path) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      close(descriptor)
      throw .last("fstat", path)
    }
    self.descriptor = descriptor
    key = FileKey(status)
    guard status.st_mode & S_IFMT == S_IFREG, status.st_size > 0 else { return }
    try endTornLine(sizeBytes: Int(status.st_size))
    guard isFirst, let line = lastLine(), let (last, _) = AuditChain.behind(line) else { return }
    if last.number >= chain.number {
      chain = last
    } else {
      beginning += [
        .init(name: "missing_from", value: .count(last.number + 1)),
        .init(name: "missing_to", value: .count(chain.number)),
      ]
    }
  }

  /// A line that a crash has cut off was never a whole one: nobody had an answer.
  private func endTornLine(sizeBytes: Int) throws(IOError) {
    let tail = tail(sizeBytes: sizeBytes)
    guard let last = tail.last, last != UInt8(ascii: "\n") else { return }
    let torn = tail.reversed().prefix { $0 != UInt8(ascii: "\n") }.count
    guard ftruncate(descriptor, off_t(sizeBytes - torn)) == 0 else {
      throw .last("ftruncate", path)
    }
    complain("the last line of the audit log was cut off and has been removed")
  }

  private func lastLine() -> [UInt8]? {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { return nil }
    let lines = tail(sizeBytes: Int(status.st_size)).split(separator: UInt8(ascii: "\n"))
    return lines.last.map(Array.init)
  }

  private func tail(sizeBytes: Int) -> [UInt8] {
    let count = min(sizeBytes, 2 * AuditFile.mostLineBytes)
    var bytes = [UInt8](repeating: 0, count: count)
    let read = pread(descriptor, &bytes, count, off_t(sizeBytes - count))
    return Array(bytes.prefix(max(0, read)))
  }

  /// All of it or nothing.
  private func write(_ line: [UInt8]) throws(IOError) {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw .last("fstat", path) }
    let written = line.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
    guard written != line.count else { return }
    let error =
      written < 0 ? IOError.last("write", path) : IOError("write", path: path, code: ENOSPC)
    if written > 0 { _ = ftruncate(descriptor, status.st_size) }
    throw error
  }

  // MARK: The head

  /// Always as long, so that one write replaces what is there, also where there is no room for more.
  private func keepHead(isOpen: Bool) {
    let file = Glibc.open(headPath, O_WRONLY | O_CREAT | O_CLOEXEC, 0o640)
    guard file >= 0 else { return }
    defer { close(file) }
    func fixed(_ number: UInt64) -> String {
      let digits = String(number)
      return String(repeating: "0", count: max(0, 20 - digits.utf8.count)) + digits
    }
    let words = [
      fixed(chain.number), chain.hash, fixed(debt.lost), fixed(debt.suppressed),
      isOpen ? "open" : "done",
    ]
    let text = Array("\(words.joined(separator: " "))\n".utf8)
    _ = text.withUnsafeBytes { pwrite(file, $0.baseAddress, $0.count, 0) }
  }

  private static func head(_ path: String) -> Head? {
    let file = Glibc.open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 256)
    let count = read(file, &bytes, bytes.count)
    let words = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
      .split(whereSeparator: \.isWhitespace)
    guard words.count == 5, let number = UInt64(words[0]), let lost = UInt64(words[2]),
      let suppressed = UInt64(words[3]),
      let chain = AuditChain(noted: number, hash: String(words[1]))
    else { return nil }
    return Head(
      chain: chain,
      debt: Debt(lost: lost, suppressed: suppressed), isOpen: words[4] == "open")
  }
}
