internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// What a change was about to do, settled as after a crash. Input: the intent's file.
enum IntentTarget {
  /// What the descriptor names, and the descriptor.
  private static let kept = ["base.hds", "top.hds", "top.hds.checkpoints", Descriptor.fileName]
  private static let spare = [
    "new.hds", "new.hds.checkpoints", "old.hds", "DiskDescriptor.xml.tmp",
  ]

  static func run(_ input: [UInt8]) throws {
    let place = try FuzzFolder()
    let geometry = Geometry(version: .v2, clusterShift: 16, sizeBytes: 1 << 20)
    let disk = try Descriptor(chain: ["base.hds", "top.hds"], of: geometry, isBaseRaw: false)
    for name in kept + spare where name != Descriptor.fileName { try place.put(name, [1]) }
    try place.put(Descriptor.fileName, disk.file)
    let file = DescriptorFile(in: place.folder)
    let intents = IntentFile(beside: file)
    try place.put(intents.name, input)
    let intent: ChainIntent?
    do { intent = try intents.read() } catch {
      return try promise(input.count > 64 << 10, "unread: \(error)")
    }
    guard let intent else { return }
    _ = intent.isMade(by: disk)
    let left = try intents.settle(intent, by: try file.read())
    for name in kept { try promise(try place.has(name), "\(name) was removed") }
    try promise(left.isEmpty != (try place.has(intents.name)), "an intent is there or is not")
    try promise(left.allSatisfy { !kept.contains($0) }, "what is kept was to be removed")
    // It may be settled any number of times, and be written again.
    try intents.begin(intent)
    try promise(try intents.read() == intent, "an intent changes when it is written")
    let after = try intents.settle(intent, by: disk)
    try promise(after == left, "settled twice, it leaves something else")
    try intents.clear()
    try promise(try !place.has(intents.name), "a change that is over")
  }
}
