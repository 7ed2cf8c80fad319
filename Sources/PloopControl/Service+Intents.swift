internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// What an attach leaves behind when the process is killed in the middle of it, and how the next
// attempt knows it for our own (docs/crash-safety.md, "An attach that did not end").

extension Service {
  /// Makes the intent of an attach durable; from now on its images may be touched.
  ///
  /// - Returns: the intent; whether the image is in order, or was left by us, is in it.
  func begin(_ intent: AttachIntent) throws(ServiceError) -> AttachIntent {
    var intent = intent
    if !intent.wasClosed {
      intent.wasClosed = wasOurs(intent.id, intent.deltas) || isClosed(intent.deltas)
    }
    try store.write { [intent] transaction throws(ServiceError) in try transaction.begin(intent) }
    return intent
  }

  /// Does what the intent says; if that is refused nothing is left of it, and the intent ends.
  func ending<Result>(
    _ intent: AttachIntent, _ body: () throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    do throws(ServiceError) { return try body() } catch {
      // What an earlier attempt left is still there, and is still ours.
      let before = state.withLock { $0.unfinished[intent.id] }
      try? store.write { transaction throws(ServiceError) in
        if let before {
          try transaction.begin(before)
        } else {
          try transaction.endIntent(of: intent.id)
        }
      }
      throw error
    }
  }

  /// The devices whose unfinished attaches are over once this one has these files.
  func intents(finishedBy id: String, _ deltas: [DeviceRecord.Delta]) -> [String] {
    state.withLock { state in
      [id]
        + state.unfinished.values.filter { intent in
          intent.id != id
            && (Service.haveSameFiles(intent.deltas, deltas) || intent.creates == deltas.last?.path)
        }.map(\.id)
    }
  }

  /// Whether an image that was not closed was left so by this service itself.
  func wasOurs(_ id: String, _ deltas: [DeviceRecord.Delta]) -> Bool {
    state.withLock { state in
      let ours = state.unfinished.values.filter(\.wasClosed).map(\.deltas)
      return (ours + [state.unclosed[id]?.deltas].compactMap { $0 })
        .contains { Service.haveSameFiles($0, deltas) }
    }
  }

  /// Whether the image of a chain that is written says that nobody has it open.
  private func isClosed(_ deltas: [DeviceRecord.Delta]) -> Bool {
    guard let top = deltas.last, let location = try? roots.locate(top.path, pointer: ""),
      let folder = try? roots.folder(of: location, pointer: ""),
      let file = try? roots.open(location, in: folder, writable: false, pointer: "")
    else { return false }
    let buffer = AlignedBuffer(count: Header.byteCount)
    guard let count = try? file.read(into: buffer.region, at: 0), count == Header.byteCount,
      let header = try? Header(parsing: buffer.region.bytes)
    else { return false }
    return header.isClean
  }

  /// Whether a file is an image that we had begun to make when the process ended, with nothing in it
  /// but a header: it was shown to nobody, and making it anew loses nothing.
  func wasBegun(_ location: Roots.Location, in folder: ImageFolder) -> Bool {
    let isOurs = state.withLock { state in
      state.unfinished.values.contains { $0.creates == location.path }
    }
    guard isOurs, let file = try? folder.open(location.name, writable: true),
      (try? ImageLock.acquire(file, for: .write)) != nil, let size = try? file.size()
    else { return false }
    defer { ImageLock.release(file) }
    return (try? Service.isBlank(file, from: UInt64(Header.byteCount), to: size)) ?? false
  }

  private static func isBlank(
    _ file: ImageFile, from start: UInt64, to end: UInt64
  ) throws(IOError) -> Bool {
    let buffer = AlignedBuffer(count: 1 << 20)
    var place = file.nextData(from: start) ?? end
    while place < end {
      let length = Int(min(end - place, UInt64(buffer.count)))
      let piece = buffer.region.slice(0, length)
      guard try file.read(into: piece, at: place) == length, piece.isZero else { return false }
      place = file.nextData(from: place + UInt64(length)) ?? end
    }
    return true
  }
}
