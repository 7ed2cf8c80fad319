internal import PloopIO
internal import PloopTLS

/// A file of pre-shared keys. Input: the file.
enum KeysTarget {
  private struct Pair: Equatable {
    var name: [UInt8]
    var key: [UInt8]
  }

  static func run(_ input: [UInt8]) throws {
    let place = try FuzzFolder()
    try place.put("keys", input)
    let path = "\(place.folder.path)/keys"
    let expected = expected(input)
    let pairs: [Pair]
    do throws(TLSFault) { pairs = try read(path) } catch {
      try promise(expected == nil, "good keys are refused: \(error)")
      let words = error.description
      try promise(words.hasPrefix(path), "it does not say which file")
      // No line is told, and so no key.
      let isTold = input.split(separator: UInt8(ascii: "\n")).contains {
        $0.count >= 24 && words.contains(String(decoding: $0, as: UTF8.self))
      }
      return try promise(!isTold, "a line of the file is told")
    }
    try promise(pairs == expected, "other keys than the file has")
    try place.put("keys", pairs.flatMap { $0.name + Array(":".utf8) + digits($0.key) + [10] })
    try promise(try read(path) == pairs, "keys change when they are written")
  }

  private static func read(_ path: String) throws(TLSFault) -> [Pair] {
    var pairs: [Pair] = []
    try KeyFile(path: path).forEach { name, key in
      pairs.append(Pair(name: Array(name), key: Array(key)))
    }
    return pairs
  }

  private static func digits(_ key: [UInt8]) -> [UInt8] {
    let digits = Array("0123456789ABCDEF".utf8)
    return key.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
  }

  /// As the description of the format has it; nil for what has to be refused.
  private static func expected(_ file: [UInt8]) -> [Pair]? {
    var lines = file.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    if lines.last?.isEmpty == true { lines.removeLast() }
    var pairs: [Pair] = []
    for line in lines {
      let parts = line.split(
        separator: UInt8(ascii: ":"), maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2, let key = key(Array(parts[1])) else { return nil }
      let name = Array(parts[0])
      guard (1...128).contains(name.count), name[0] != UInt8(ascii: "#"),
        !name.contains(where: { $0 <= 0x20 || $0 == 0x7F }),
        Array(String(decoding: name, as: UTF8.self).utf8) == name,
        !pairs.contains(where: { $0.name == name })
      else { return nil }
      pairs.append(Pair(name: name, key: key))
    }
    return pairs.isEmpty ? nil : pairs
  }

  private static func key(_ text: [UInt8]) -> [UInt8]? {
    guard text.count % 2 == 0, (32...1024).contains(text.count) else { return nil }
    var key: [UInt8] = []
    for start in stride(from: 0, to: text.count, by: 2) {
      // A sign would be taken as well.
      guard text[start] != UInt8(ascii: "+"), text[start] != UInt8(ascii: "-"),
        let byte = UInt8(String(decoding: text[start..<start + 2], as: UTF8.self), radix: 16)
      else { return nil }
      key.append(byte)
    }
    return key
  }
}
