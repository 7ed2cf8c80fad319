internal import FoundationEssentials
package import PloopFormat
internal import PloopIO

/// What a change of a chain is about to do, durable beside the descriptor before its first write.
///
/// Its descriptor decides: the rename of the new one is the moment of the change. Before it, what the
/// change has made belongs to nobody; after it, what the change has no use for any more does. So one
/// rule ends every change that a crash has interrupted, and may be followed any number of times: of
/// the files in the intent, those that the descriptor does not name are removed.
package struct ChainIntent: Codable, Sendable, Equatable {
  package enum Operation: String, Codable, Sendable {
    case snapshot, merge, delete, replace, flip, restore
    case switchTop = "switch"
  }

  /// The request that asked for the change, if it is to have its effect only once.
  package struct Request: Codable, Sendable, Equatable {
    package var key: String
    package var route: String
    package var fingerprint: String

    package init(key: String, route: String, fingerprint: String) {
      self.key = key
      self.route = route
      self.fingerprint = fingerprint
    }
  }

  package var operation: Operation
  /// Whose chain it is.
  package var device: String
  /// The snapshot that is made, merged away, removed, gone back to, or has another file then; or the top.
  package var snapshot: String
  /// Files in the descriptor's folder that are made for the change, or needed no longer after it.
  package var files: [String]
  /// The file that the snapshot has until the change is made, where that tells whether it was.
  package var formerFile: String?
  package var request: Request?

  package init(
    _ operation: Operation, device: String, snapshot: GUID, files: [String],
    formerFile: String? = nil, request: Request? = nil
  ) {
    self.operation = operation
    self.device = device
    self.snapshot = snapshot.description
    self.files = files
    self.formerFile = formerFile
    self.request = request
  }
}

extension ChainIntent {
  /// Whether the change has been made, as far as the descriptor tells.
  package func isMade(by descriptor: Descriptor) -> Bool {
    guard let guid = GUID(snapshot) else { return false }
    switch operation {
    case .snapshot: return descriptor.shot(guid) != nil
    case .merge, .delete: return descriptor.shot(guid) == nil
    // It can be asked for again, and is the same then.
    case .replace: return false
    case .flip, .restore: return descriptor.shot(guid)?.file != formerFile
    case .switchTop: return files.first.map(descriptor.names) ?? false
    }
  }
}

/// The intent beside a descriptor. Whoever writes or settles it holds the descriptor's lock.
package struct IntentFile: Sendable {
  private static let limit = 64 << 10

  private let descriptor: DescriptorFile

  package init(beside descriptor: DescriptorFile) { self.descriptor = descriptor }

  private var folder: ImageFolder { descriptor.folder }
  package var name: String { "\(descriptor.name).intent" }

  /// Makes it durable: from now on the change may write.
  package func begin(_ intent: ChainIntent) throws(DeviceError) {
    try prepare(intent)
    try converting { () throws(IOError) in try folder.commit(name) }
  }

  /// The first half of ``begin(_:)``; a rename and a sync of the folder are the second.
  func prepare(_ intent: ChainIntent) throws(DeviceError) {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let bytes = try? encoder.encode(intent) else {
      throw DeviceError(.io(IOError("encode", path: name, code: 22)), "an intent has no text")
    }
    try converting { () throws(IOError) in try folder.prepare(name, with: Array(bytes)) }
  }

  /// - Returns: nil when there is none, or nothing that we have written whole.
  package func read() throws(DeviceError) -> ChainIntent? {
    guard folder.contains(name) else { return nil }
    let bytes = try converting { () throws(IOError) in
      try folder.bytes(of: name, limit: IntentFile.limit)
    }
    return try? JSONDecoder().decode(ChainIntent.self, from: Data(bytes))
  }

  /// Removes what the descriptor, durable as it is, does not name, and then the intent.
  ///
  /// Nobody's files are touched but those in the descriptor's own folder, and none that a disk or
  /// another program has open.
  ///
  /// - Returns: files that could not be removed now. While there are any, so is the intent.
  package func settle(
    _ intent: ChainIntent, by descriptor: Descriptor
  ) throws(DeviceError) -> [String] {
    let left = intent.files.filter { !descriptor.names($0) && !remove($0) }
    if left.isEmpty { try clear() } else { try discard() }
    return left
  }

  private func remove(_ name: String) -> Bool {
    // By its bytes, as the kernel reads it: a character may be more than a slash, and a name ends at a zero.
    guard !name.utf8.contains(where: { $0 == 0 || $0 == UInt8(ascii: "/") }),
      name != descriptor.name, folder.contains(name)
    else { return true }
    guard let file = try? folder.open(name, writable: true),
      (try? ImageLock.acquire(file, for: .write)) != nil
    else { return false }
    defer { ImageLock.release(file) }
    // What an image's checkpoints and hashes say is of no use without it.
    for beside in [CheckpointMove.fileName(beside: name), HashFile.name(beside: name)]
    where folder.contains(beside) && (try? folder.unlink(beside)) == nil { return false }
    return (try? folder.unlink(name)) != nil
  }

  /// Removes what was written ahead and did not get its name.
  private func discard() throws(DeviceError) {
    try descriptor.abandon()
    try NewTop.discard(beside: descriptor)
    try converting { () throws(IOError) in try folder.removeIfThere("\(name).tmp") }
  }

  /// The change is over. An intent that is seen again after a crash has nothing left to do.
  package func clear() throws(DeviceError) {
    try discard()
    guard folder.contains(name) else { return }
    try converting { () throws(IOError) in
      try folder.unlink(name)
      try folder.sync()
    }
  }
}

extension Descriptor {
  /// Whether a shot's file may be this one in the descriptor's folder. Where the path is another way
  /// to say it, or leads elsewhere, the name alone counts: rather a file too many than one too few.
  fileprivate func names(_ file: String) -> Bool {
    func name(_ shot: Shot) -> String? { shot.file.split(separator: "/").last.map(String.init) }
    if shots.contains(where: { name($0) == file }) { return true }
    // A disk's checkpoints lie beside its top.
    return shot(topGUID).flatMap(name).map(CheckpointMove.fileName) == file
  }
}
