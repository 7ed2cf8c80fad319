extension CheckpointFile {
  /// Why a file is none of ours, in words.
  package struct Fault: Error, Equatable, Sendable {
    package let detail: String

    package init(detail: String) { self.detail = detail }
  }

  /// The file but for its marks.
  package struct Parts: Sendable {
    /// Belongs to the beginning of the file.
    package let head: [UInt8]
    /// Belongs behind the marks.
    package let body: [UInt8]
  }

  package var parts: Parts {
    let body = encodedBody
    var head = ByteWriter()
    head.append(CheckpointFile.magic)
    head.append(CheckpointFile.version)
    head.append(state.rawValue)
    head.append(diskBytes)
    head.append(UInt32(regionShift))
    head.append(UInt32(0))
    head.append(UInt64(body.count))
    head.append(MD5.digest(body[...]))
    head.append(MD5.digest(head.bytes[...]))
    let filling = [UInt8](repeating: 0, count: CheckpointFile.headBytes - head.bytes.count)
    return Parts(head: head.bytes + filling, body: body)
  }

  /// The whole file, with all regions unmarked.
  package var encoded: [UInt8] {
    let parts = self.parts
    return parts.head + [UInt8](repeating: CheckpointFile.clean, count: marksBytes) + parts.body
  }

  private var encodedBody: [UInt8] {
    var body = ByteWriter()
    body.append(UInt32(chain.count))
    for stamp in chain {
      body.append(stamp.inode)
      body.append(stamp.sizeBytes)
      body.append(UInt64(bitPattern: stamp.seconds))
      body.append(stamp.nanoseconds)
      body.append(stamp.header)
    }
    body.append(UInt32(checkpoints.count))
    for checkpoint in checkpoints {
      body.append(text: checkpoint.name)
      body.append(checkpoint.createdAt.bitPattern)
      body.append(UInt32(checkpoint.granularityShift))
      body.append(text: checkpoint.parent ?? "")
      body.append(text: checkpoint.inconsistency ?? "")
      body.append(text: checkpoint.request ?? "")
      let bits = checkpoint.bits.prefix((checkpoint.bits.lastIndex { $0 != 0 } ?? -1) + 1)
      body.append(UInt64(bits.count))
      body.append(Array(bits))
    }
    return body.bytes
  }

  /// Reads a whole file.
  ///
  /// - Returns: also which regions are marked.
  package static func parse(
    _ bytes: [UInt8]
  ) throws(Fault) -> (file: CheckpointFile, isMarked: [Bool]) {
    guard bytes.count >= headBytes else { throw Fault(detail: "it ends within its head") }
    var head = ByteReader(bytes[..<headBytes])
    guard try head.bytes(magic.count) == magic else { throw Fault(detail: "its magic is wrong") }
    let version = try head.number(UInt32.self)
    guard versions.contains(version) else {
      throw Fault(detail: "it is of a version that is not known")
    }
    let state = State(rawValue: try head.number(UInt32.self))
    let diskBytes = try head.number(UInt64.self)
    let shift = Int(try head.number(UInt32.self))
    _ = try head.number(UInt32.self)
    let bodyBytes = try head.number(UInt64.self)
    let bodySum = try head.bytes(MD5.byteCount)
    guard try head.bytes(MD5.byteCount) == MD5.digest(bytes[..<checkedHeadBytes]) else {
      throw Fault(detail: "the checksum of its head is wrong")
    }
    guard let state, regionShifts.contains(shift), diskBytes > 0,
      regionCount(ofDiskBytes: diskBytes, shift: shift) <= regionLimit
    else { throw Fault(detail: "its head makes no sense") }
    var file = CheckpointFile(
      state: state, diskBytes: diskBytes, regionShift: shift, chain: [], checkpoints: [])
    let bodyStart = headBytes + file.marksBytes
    guard bytes.count >= bodyStart, bodyBytes == UInt64(bytes.count - bodyStart) else {
      throw Fault(detail: "it has \(bytes.count) bytes, which is not what its head says")
    }
    let body = bytes[bodyStart...]
    guard MD5.digest(body) == bodySum else {
      throw Fault(detail: "the checksum of its body is wrong")
    }
    var reader = ByteReader(body)
    try file.readBody(&reader, version)
    let marks = bytes[headBytes..<(headBytes + file.regionCount)]
    return (file, marks.map { $0 != clean })
  }

  private mutating func readBody(
    _ body: inout ByteReader, _ version: UInt32
  ) throws(Fault) {
    let deltas = try body.number(UInt32.self)
    guard deltas <= UInt32(CheckpointFile.deltaLimit) else {
      throw Fault(detail: "it tells of \(deltas) deltas")
    }
    for _ in 0..<deltas {
      chain.append(
        Stamp(
          inode: try body.number(UInt64.self), sizeBytes: try body.number(UInt64.self),
          seconds: Int64(bitPattern: try body.number(UInt64.self)),
          nanoseconds: try body.number(UInt32.self),
          header: try body.bytes(Header.byteCount)))
    }
    let count = try body.number(UInt32.self)
    guard count <= UInt32(CheckpointFile.checkpointLimit) else {
      throw Fault(detail: "it has \(count) checkpoints")
    }
    var names: Set<String> = []
    for _ in 0..<count {
      let checkpoint = try readCheckpoint(&body, version)
      guard names.insert(checkpoint.name).inserted else {
        throw Fault(detail: "it has two checkpoints called \(checkpoint.name)")
      }
      checkpoints.append(checkpoint)
    }
    guard body.isAtEnd else { throw Fault(detail: "its body is longer than what it holds") }
  }

  private func readCheckpoint(
    _ body: inout ByteReader, _ version: UInt32
  ) throws(Fault) -> Checkpoint {
    let name = try body.text()
    let createdAt = Double(bitPattern: try body.number(UInt64.self))
    let shift = Int(try body.number(UInt32.self))
    let (parent, inconsistency) = (try body.text(), try body.text())
    let request = version > 1 ? try body.text() : ""
    guard !name.isEmpty, createdAt.isFinite, CheckpointFile.granularityShifts.contains(shift) else {
      throw Fault(detail: "a checkpoint makes no sense")
    }
    let length = try body.number(UInt64.self)
    guard
      length <= CheckpointFile.bitmapBytes(forDiskBytes: diskBytes, granularityShift: shift),
      length <= UInt64(CheckpointFile.bitmapBytesLimit)
    else { throw Fault(detail: "the checkpoint \(name) has more bits than the disk") }
    return Checkpoint(
      name: name, createdAt: createdAt, granularityShift: shift,
      parent: parent.isEmpty ? nil : parent,
      inconsistency: inconsistency.isEmpty ? nil : inconsistency,
      request: request.isEmpty ? nil : request,
      bits: try body.bytes(Int(length)))
  }
}

private struct ByteWriter {
  private(set) var bytes: [UInt8] = []

  mutating func append(_ more: [UInt8]) { bytes += more }

  mutating func append<Number: FixedWidthInteger>(_ number: Number) {
    for index in 0..<MemoryLayout<Number>.size {
      bytes.append(UInt8(truncatingIfNeeded: number >> Number(8 * index)))
    }
  }

  /// A text that is too long for the file is cut.
  mutating func append(text: String) {
    var kept =
      text.utf8.count > CheckpointFile.textLimit
      ? String(text.prefix(CheckpointFile.textLimit / 4)) : text
    while kept.utf8.count > CheckpointFile.textLimit { kept.removeLast() }
    append(UInt32(kept.utf8.count))
    append(Array(kept.utf8))
  }
}

/// Bytes that are taken one after the other, each access checked against their end.
private struct ByteReader {
  private var rest: ArraySlice<UInt8>

  init(_ bytes: ArraySlice<UInt8>) { rest = bytes }

  var isAtEnd: Bool { rest.isEmpty }

  mutating func bytes(_ count: Int) throws(CheckpointFile.Fault) -> [UInt8] {
    guard count <= rest.count else { throw CheckpointFile.Fault(detail: "it ends too early") }
    defer { rest = rest.dropFirst(count) }
    return Array(rest.prefix(count))
  }

  mutating func number<Number: FixedWidthInteger>(
    _: Number.Type
  ) throws(CheckpointFile.Fault) -> Number {
    try bytes(MemoryLayout<Number>.size).enumerated().reduce(0) {
      $0 | Number($1.element) << Number(8 * $1.offset)
    }
  }

  mutating func text() throws(CheckpointFile.Fault) -> String {
    let length = try number(UInt32.self)
    guard length <= UInt32(CheckpointFile.textLimit),
      let text = String(validating: try bytes(Int(length)), as: UTF8.self)
    else { throw CheckpointFile.Fault(detail: "a text in it is none") }
    return text
  }
}
