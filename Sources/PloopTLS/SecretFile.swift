internal import Glibc
internal import PloopIO

/// What a file says that nobody on this host may read but its owner and his group. It is wiped from memory at the end,
/// since an array may leave copies. Unchecked: it is written once, and only read from then on.
final class SecretFile: @unchecked Sendable {
  private static let mostBytes = 1 << 20

  /// Zero-terminated, as the libraries read it.
  let text: UnsafeMutablePointer<CChar>
  let count: Int

  /// - Throws: where it cannot be read, is no regular file, or anybody can read it.
  init(path: String) throws(TLSFault) {
    // What is judged is what is read: a name could mean another file a moment later. A FIFO is not waited for.
    let number = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)
    var facts = stat()
    guard number >= 0, fstat(number, &facts) == 0 else {
      let reason = IOError.text(of: errno)
      if number >= 0 { close(number) }
      throw TLSFault("\(path) cannot be read: \(reason)")
    }
    defer { close(number) }
    guard facts.st_mode & S_IFMT == S_IFREG else { throw TLSFault("\(path) is no regular file") }
    guard facts.st_mode & (S_IROTH | S_IWOTH) == 0 else {
      throw TLSFault("\(path) is open to everybody on this host; chmod o= closes it")
    }
    let size = Int(facts.st_size)
    guard (0...SecretFile.mostBytes).contains(size) else {
      throw TLSFault("\(path) has more than \(SecretFile.mostBytes) bytes")
    }
    let text = UnsafeMutablePointer<CChar>.allocate(capacity: size + 1)
    var done = 0
    while done < size {
      let more = Glibc.read(number, text + done, size - done)
      guard more > 0 else { break }
      done += more
    }
    guard done == size else {
      explicit_bzero(text, size)
      text.deallocate()
      throw TLSFault("\(path) cannot be read as a whole")
    }
    text[size] = 0
    self.text = text
    count = size
  }

  deinit {
    explicit_bzero(text, count)
    text.deallocate()
  }

  /// Has nothing left of it for whoever gets the memory next.
  static func wipe(_ region: UnsafeMutableRawBufferPointer) {
    guard let start = region.baseAddress else { return }
    explicit_bzero(start, region.count)
  }

  /// Valid as long as this object.
  var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: text, count: count) }
}
