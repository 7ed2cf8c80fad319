internal import PloopIO

/// Tells states apart by their content, also between two recordings of the same steps: what is random in names and
/// texts, identifiers and the time of day, stands for the order in which it came.
struct StateNames {
  /// Identifiers as they are written, without braces.
  private var numbers: [[UInt8]: UInt8] = [:]

  private static let idBytes = 36
  private static let time = Array("\"completed_at\":".utf8)

  /// - Parameter events: which say in which order identifiers came.
  init(initial: [String: [UInt8]], _ events: [IOTrace.Event]) {
    for (name, bytes) in initial.sorted(by: { $0.key < $1.key }) {
      learn(Array(name.utf8))
      if StateNames.isText(bytes) { learn(bytes) }
    }
    for event in events {
      switch event {
      case .create(let path): learn(Array(path.utf8))
      case .rename(_, let path): learn(Array(path.utf8))
      case .write(_, 0, let bytes) where StateNames.isText(bytes): learn(bytes)
      default: break
      }
    }
  }

  /// Whether it is a descriptor, an intent, notes or a manifest.
  private static func isText(_ bytes: [UInt8]) -> Bool {
    bytes.first == UInt8(ascii: "<") || bytes.first == UInt8(ascii: "{")
  }

  private static func isID(_ bytes: ArraySlice<UInt8>) -> Bool {
    guard bytes.count == idBytes else { return false }
    for (index, byte) in bytes.enumerated() {
      let isDash = [8, 13, 18, 23].contains(index)
      switch byte {
      case UInt8(ascii: "-"): guard isDash else { return false }
      case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"):
        guard !isDash else { return false }
      default: return false
      }
    }
    return true
  }

  /// Where identifiers begin: behind each brace.
  private static func places(in text: [UInt8]) -> [Int] {
    text.indices.filter { index in
      text[index] == UInt8(ascii: "{") && isID(text[(index + 1)...].prefix(idBytes))
    }.map { $0 + 1 }
  }

  private mutating func learn(_ text: [UInt8]) {
    for place in StateNames.places(in: text) {
      let id = Array(text[place..<place + StateNames.idBytes])
      if numbers[id] == nil { numbers[id] = UInt8(truncatingIfNeeded: numbers.count) }
    }
  }

  private func put(_ text: [UInt8]) -> [UInt8] {
    var text = text
    for place in StateNames.places(in: text) {
      let range = place..<place + StateNames.idBytes
      guard let number = numbers[Array(text[range])] else { continue }
      text.replaceSubrange(range, with: repeatElement(number, count: range.count))
    }
    if let first = StateNames.time.first, text.count > StateNames.time.count {
      for index in 0..<text.count - StateNames.time.count
      where text[index] == first && text[index...].starts(with: StateNames.time) {
        let rest = text[(index + StateNames.time.count)...]
        let end = rest.firstIndex { $0 == UInt8(ascii: ",") || $0 == UInt8(ascii: "}") }
        text.replaceSubrange(rest.startIndex..<(end ?? rest.endIndex), with: [])
        break
      }
    }
    return text
  }

  func digest(of state: [String: [UInt8]]) -> UInt64 {
    var digest = Digest()
    for (name, bytes) in state.map({ (put(Array($0.key.utf8)), $0.value) }).sorted(by: {
      $0.0.lexicographicallyPrecedes($1.0)
    }) {
      digest.add(name)
      digest.add(StateNames.isText(bytes) ? put(bytes) : bytes)
    }
    return digest.value
  }

  /// Of the bytes of one file.
  static func digest(of bytes: [UInt8]) -> UInt64 {
    var digest = Digest()
    digest.add(bytes)
    return digest.value
  }

  /// A quick sum, of 64 bits: two of a million different states have the same with a chance of one in ten million.
  private struct Digest {
    private(set) var value: UInt64 = 0x9E37_79B9_7F4A_7C15

    private mutating func mix(_ word: UInt64) {
      let product = (value ^ word).multipliedFullWidth(by: 0xD6E8_FEB8_6659_FD93)
      value = product.high ^ product.low &+ 0x9E37_79B9_7F4A_7C15
    }

    mutating func add(_ bytes: [UInt8]) {
      mix(UInt64(bytes.count))
      bytes.withUnsafeBytes { bytes in
        var place = 0
        while place + 8 <= bytes.count {
          mix(bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self))
          place += 8
        }
        for byte in bytes[place...] { mix(UInt64(byte)) }
      }
    }
  }
}
