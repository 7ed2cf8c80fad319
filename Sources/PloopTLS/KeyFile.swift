internal import PloopIO

/// Pre-shared keys, a line each, as psktool writes them: `name:hexadecimal key`. All of it has to be understood, since a
/// key that is empty, or not what somebody meant, lets others in. Faults name the line and never what it says.
package struct KeyFile: ~Copyable {
  /// Shorter ones can be guessed from what is heard (RFC 4279 7.2); longer ones than these psktool does not make.
  private static let keyBytes = 16...512
  /// GnuTLS has no room for longer ones.
  private static let nameBytes = 1...128

  private let path: String
  private let file: SecretFile

  package init(path: String) throws(TLSFault) {
    self.path = path
    file = try SecretFile(path: path)
  }

  /// - Parameter take: is told each of them; the bytes are valid during the call.
  /// - Throws: at the first line that cannot be used, or where there is none.
  package func forEach(
    _ take: (_ name: UnsafeRawBufferPointer, _ key: UnsafeRawBufferPointer) throws(TLSFault) -> Void
  ) throws(TLSFault) {
    var names: Set<[UInt8]> = []
    let lines = file.bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    for (index, slice) in lines.enumerated() {
      let line = UnsafeRawBufferPointer(rebasing: slice)
      // What ends with a line break has nothing behind it.
      if line.isEmpty, index == lines.count - 1 { continue }
      let place = "\(path), line \(index + 1)"
      guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else {
        throw TLSFault("\(place): it is no NAME:KEY")
      }
      let name = UnsafeRawBufferPointer(rebasing: line[..<colon])
      guard KeyFile.isName(name) else {
        throw TLSFault(
          "\(place): a name has 1 to \(KeyFile.nameBytes.upperBound) visible bytes, and no # first")
      }
      guard names.insert(Array(name)).inserted else {
        throw TLSFault("\(place): the name is there twice")
      }
      try KeyFile.decode(UnsafeRawBufferPointer(rebasing: line[(colon + 1)...]), place) {
        (key) throws(TLSFault) in try take(name, key)
      }
    }
    guard !names.isEmpty else { throw TLSFault("\(path) has no keys") }
  }

  private static func isName(_ bytes: UnsafeRawBufferPointer) -> Bool {
    nameBytes.contains(bytes.count) && bytes.allSatisfy { $0 > 0x20 && $0 != 0x7F }
      // GnuTLS's own reader takes what is behind it for hexadecimal.
      && bytes.first != UInt8(ascii: "#") && String(validating: bytes, as: UTF8.self) != nil
  }

  private static func decode(
    _ digits: UnsafeRawBufferPointer, _ place: String,
    _ take: (UnsafeRawBufferPointer) throws(TLSFault) -> Void
  ) throws(TLSFault) {
    guard digits.count % 2 == 0, keyBytes.contains(digits.count / 2),
      digits.allSatisfy({ value(of: $0) != nil })
    else {
      throw TLSFault(
        "\(place): a key is \(keyBytes.lowerBound) to \(keyBytes.upperBound) bytes as hexadecimal digits, and nothing behind them"
      )
    }
    let key = UnsafeMutableRawBufferPointer.allocate(byteCount: digits.count / 2, alignment: 1)
    defer {
      SecretFile.wipe(key)
      key.deallocate()
    }
    for index in key.indices {
      let high = value(of: digits[index * 2]) ?? 0
      let low = value(of: digits[index * 2 + 1]) ?? 0
      key[index] = high << 4 | low
    }
    try take(UnsafeRawBufferPointer(key))
  }

  private static func value(of digit: UInt8) -> UInt8? {
    switch digit {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
    default: nil
    }
  }
}
