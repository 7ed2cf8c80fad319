internal import Glibc
internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import TestSupport

/// Repairs an image by force, with every call recorded.
///
/// Of its eight clusters 0 and 3 are as they should be, 1 has the place of 0, 2 an entry far behind the end,
/// 4 the reserved one, 5 a last cluster of which half is there; a slot behind the disk is set. What 2 and 4
/// have lost lies in the file, and nothing leads to it.
package final class RepairRecording {
  private static let name = "image"
  private static let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 8 * 4096)
  /// What each cluster has to read as, by the number that fills it; nil where that is half of it.
  private static let wanted: [UInt8?] = [0xA1, 0xA1, 0, 0xA2, 0, nil, 0, 0]
  private static let lost: [UInt64: UInt8] = [3: 0xB3, 4: 0xB4]

  private let watch = Watch()
  private let folder: ImageFolder
  private let plain: ImageFolder
  private let initial: [UInt8]

  /// - Parameter path: an empty folder.
  package init(path: String) throws {
    plain = try ImageFolder(path: path)
    folder = try ImageFolder(path: path, probe: watch)
    var bytes = [UInt8](repeating: 0, count: 4096 * 5 + 2048)
    var header = Header(new: Self.geometry)
    header.flags = 0
    bytes.replaceSubrange(0..<64, with: header.encoded)
    for (slot, entry) in [(0, 1), (1, 1), (2, 0xFFFFFF), (3, 2), (4, 0xFFFF_FFFF), (5, 5), (9, 1)] {
      for byte in 0..<4 {
        bytes[64 + 4 * slot + byte] = UInt8(truncatingIfNeeded: entry >> (8 * byte))
      }
    }
    for (cluster, value) in [(1, 0xA1), (2, 0xA2), (3, 0xB3), (4, 0xB4)] {
      for byte in 0..<4096 { bytes[cluster * 4096 + byte] = UInt8(value) }
    }
    for byte in 0..<2048 { bytes[5 * 4096 + byte] = 0xA5 }
    initial = bytes
    try FolderStates.lay([Self.name: initial], in: plain)
  }

  private static func source(_ folder: ImageFolder) throws -> DeltaSource {
    DeltaSource(
      file: try folder.open(name, writable: true), folder: folder, name: name)
  }

  private static func repair(_ folder: ImageFolder) throws {
    let plan = try RepairPlan(of: [source(folder)])
    if plan.isNeeded {
      _ = try ForcedRepair.run([source(folder)], plan: plan.digest)
    } else {
      _ = try ImageRepair.run(source(folder))
    }
  }

  package func run() throws { try Self.repair(folder) }

  /// Looks at states behind each event (``ChainRecording/enumerate(path:_:_:)``).
  package func enumerate(
    path: String, _ bounds: Bounds, _ looks: Looks = Looks()
  ) throws -> Enumeration.Result {
    try FolderStates.enumerate(
      watch, in: folder, initial: [Self.name: initial], scratch: ImageFolder(path: path), bounds,
      looks
    ) { state, _, scratch in
      check(state, in: scratch, looks)
    }
  }

  /// Fails each call in turn, in each way.
  ///
  /// - Returns: how often it failed, and what was wrong afterwards.
  package func sweep() throws -> Enumeration.Result {
    var result = Enumeration.Result()
    for code in [EIO, ENOSPC] {
      var number = 0
      var isOver = false
      while !isOver {
        try FolderStates.lay([Self.name: initial], in: plain)
        let target = number
        watch.use { call, _ in call == target ? .error(code) : nil }
        watch.restart()
        do { try run() } catch { result.states += 1 }
        isOver = watch.hit == nil
        watch.use(nil)
        var state: [String: [UInt8]] = [:]
        for name in try plain.names() { state[name] = try plain.bytes(of: name, limit: 1 << 20) }
        if let fault = check(state, in: plain) {
          result.bad.append("call \(number), code \(code): \(fault)")
        }
        number += 1
      }
    }
    return result
  }

  /// What can be read is what could be read; where entries have changed the copies are there; and who goes
  /// on comes to the end.
  private func check(
    _ state: [String: [UInt8]], in scratch: ImageFolder, _ looks: Looks = Looks()
  ) -> String? {
    do {
      try FolderStates.lay(state, in: scratch)
      if let fault = try readable(scratch) ?? kept(state, scratch) { return fault }
      try Self.repair(scratch)
      let check = try ImageCheck(scratch.open(Self.name, writable: false))
      guard check.verdict == .clean else { return "it ends \(check.verdict)" }
      if let fault = try looks.judge(Self.name, in: scratch) { return fault }
      let device = try Device.attach([Self.source(scratch)], .ofTests)
      defer { try? device.detach(until: .after(seconds: 10)) }
      for (cluster, value) in Self.wanted.enumerated() {
        let bytes = try device.bytes(UInt64(cluster) << 12, 4096)
        let wanted =
          value.map { [UInt8](repeating: $0, count: 4096) }
          ?? [UInt8](repeating: 0xA5, count: 2048) + [UInt8](repeating: 0, count: 2048)
        guard bytes == wanted else { return "cluster \(cluster) holds something else in the end" }
      }
      return nil
    } catch {
      return "\(error)"
    }
  }

  /// The entries that can be followed lead where they led.
  private func readable(_ scratch: ImageFolder) throws -> String? {
    let file = try scratch.open(Self.name, writable: false)
    var scan = IndexScan(Self.geometry, fileBytes: try file.size())
    var places: [UInt64: UInt64] = [:]
    try scan.run(file) {
      places[$0] = $1
    } fault: { _ in
    }
    let buffer = AlignedBuffer(count: 4096)
    for cluster: UInt64 in [0, 3] {
      guard let place = places[cluster] else { return "cluster \(cluster) is gone" }
      try file.readOrZero(into: buffer.region, at: place << 12)
      guard buffer.region.bytes.allSatisfy({ $0 == Self.wanted[Int(cluster)] }) else {
        return "cluster \(cluster) reads as something else"
      }
    }
    return nil
  }

  private func kept(_ state: [String: [UInt8]], _ scratch: ImageFolder) throws -> String? {
    let index = Array((state[Self.name] ?? []).prefix(4096).dropFirst(64))
    guard index != Array(initial.prefix(4096).dropFirst(64)) else { return nil }
    guard
      let backup = state.first(where: {
        $0.key.hasPrefix("image.index-backup-") && !$0.key.hasSuffix(".tmp")
          && $0.value.dropFirst(64) == initial.prefix(4096).dropFirst(64)
      }),
      let lost = state["image.lost-\(backup.key.dropFirst("image.index-backup-".count))"]
    else { return "entries have changed, and there are no copies" }
    for (cluster, value) in Self.lost {
      let place = Int(cluster) << 12
      guard lost.count >= place + 4096, lost[place..<place + 4096].allSatisfy({ $0 == value })
      else { return "what nothing leads to is not kept" }
    }
    return nil
  }
}
