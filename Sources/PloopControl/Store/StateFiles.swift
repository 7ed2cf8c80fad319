internal import FoundationEssentials
internal import Glibc
internal import PloopIO

/// The files in which versions before the database kept the state: `service.json`, and one of
/// `devices/` for each device. They are taken into the database once, and then removed.
struct StateFiles {
  struct Content: Sendable {
    var records: [DeviceRecord] = []
    var revision: UInt64 = 0
  }

  private struct ServiceRecord: Codable {
    var reservedRevision: UInt64 = 0
  }

  private static let service = "service.json"
  private static let devices = "devices"

  private let folder: ImageFolder
  let content: Content
  /// What could not be read, in words. Such a file is renamed, and left for people.
  let damaged: [String]
  /// The files whose content is in the database as soon as `content` is.
  private let taken: [String]

  /// - Returns: nil when there are none.
  init?(in folder: ImageFolder) throws(ServiceError) {
    self.folder = folder
    var content = Content()
    var damaged: [String] = []
    var taken: [String] = []
    do throws(IOError) {
      guard folder.contains(StateFiles.service) || folder.contains(StateFiles.devices) else {
        return nil
      }
      if folder.contains(StateFiles.service) {
        taken.append(StateFiles.service)
        let record: ServiceRecord? = try StateFiles.read(StateFiles.service, in: folder)
        if let record {
          content.revision = record.reservedRevision
        } else {
          damaged.append(try StateFiles.setAside(StateFiles.service, in: folder))
        }
      }
      for name in try StateFiles.deviceFiles(in: folder) {
        let record: DeviceRecord? = try StateFiles.read(name, in: folder)
        if let record {
          content.records.append(record)
          content.revision = max(content.revision, record.revision)
          taken.append(name)
        } else {
          damaged.append(try StateFiles.setAside(name, in: folder))
        }
      }
    } catch { throw ServiceError(error) }
    self.content = content
    self.damaged = damaged
    self.taken = taken
  }

  private static func deviceFiles(in folder: ImageFolder) throws(IOError) -> [String] {
    guard folder.contains(devices) else { return [] }
    return try folder.folder(beneath: devices).names().filter { $0.hasSuffix(".json") }.sorted()
      .map { "\(devices)/\($0)" }
  }

  /// - Returns: nil when the file is no such record.
  private static func read<Record: Decodable>(
    _ name: String, in folder: ImageFolder
  ) throws(IOError) -> Record? {
    let bytes = try folder.bytes(of: name, limit: 16 << 20)
    return try? JSONDecoder().decode(Record.self, from: Data(bytes))
  }

  private static func setAside(_ name: String, in folder: ImageFolder) throws(IOError) -> String {
    try folder.rename(name, to: "\(name).damaged")
    return "\(folder.path)/\(name) is no record of this service; it is \(name).damaged now"
  }

  /// Call once the content is durable elsewhere. A crash in between leaves some of the files, which
  /// are then removed by the next start.
  func remove() throws(ServiceError) {
    do throws(IOError) {
      for name in taken where folder.contains(name) { try folder.unlink(name) }
      if folder.contains(StateFiles.devices) {
        let devices = try folder.folder(beneath: StateFiles.devices)
        for name in try devices.names() where name.hasSuffix(".json.tmp") {
          try devices.unlink(name)
        }
        try devices.sync()
        // What is left in it, if anything, is for people.
        _ = folder.withDescriptor { unlinkat($0, StateFiles.devices, AT_REMOVEDIR) }
      }
      try folder.sync()
    } catch { throw ServiceError(error) }
  }
}
