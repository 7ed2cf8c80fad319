internal import FoundationEssentials
internal import Glibc
internal import PloopIO

/// The state folder: a small file for each device, replaced as a whole and durably, and one for the
/// service. A second service on the same folder is refused.
package final class Store: Sendable {
  private static let revisionsReserved: UInt64 = 100_000
  private static let serviceFile = "service.json"

  private let folder: ImageFolder
  private let devices: ImageFolder
  private let revisions: Locked<Revisions>
  /// Held as long as the service lives.
  private let lock: ImageFile

  private struct Revisions {
    var last: UInt64
    var reserved: UInt64
  }

  /// - Throws: `image-in-use` when another service has the folder, or the error of using it.
  package init(path: String) throws(ServiceError) {
    do throws(IOError) {
      folder = try ImageFolder(path: path)
      devices = try folder.makeFolder(beneath: "devices")
      lock =
        folder.contains("lock")
        ? try folder.open("lock", writable: true) : try folder.create("lock", mode: 0o600)
    } catch { throw ServiceError(error) }
    guard lock.withDescriptor({ flock($0, LOCK_EX | LOCK_NB) }) == 0 else {
      throw ServiceError(
        .imageInUse, "another ploopd uses the state folder \(path)",
        remedy: "end it, or give this one a --state-dir of its own")
    }
    let record: ServiceRecord = try Store.read(Store.serviceFile, in: folder) ?? ServiceRecord()
    revisions = Locked(
      Revisions(last: record.reservedRevision, reserved: record.reservedRevision))
  }

  /// A number that is greater than every one before, also of earlier lives of the service.
  func nextRevision() throws(ServiceError) -> UInt64 {
    try revisions.withLock { revisions throws(ServiceError) in
      if revisions.last == revisions.reserved {
        let reserved = revisions.reserved + Store.revisionsReserved
        try write(
          ServiceRecord(reservedRevision: reserved), to: Store.serviceFile, in: folder)
        revisions.reserved = reserved
      }
      revisions.last += 1
      return revisions.last
    }
  }

  var lastRevision: UInt64 { revisions.withLock { $0.last } }

  /// Every record that can be read; what cannot is reported and left where it is.
  func load() throws(ServiceError) -> (records: [DeviceRecord], damaged: [String]) {
    var records: [DeviceRecord] = []
    var damaged: [String] = []
    let names: [String]
    do throws(IOError) { names = try devices.names() } catch { throw ServiceError(error) }
    for name in names.sorted() where name.hasSuffix(".json") {
      do throws(ServiceError) {
        if let record: DeviceRecord = try Store.read(name, in: devices) { records.append(record) }
      } catch {
        damaged.append(error.detail)
      }
    }
    return (records, damaged)
  }

  func save(_ record: DeviceRecord) throws(ServiceError) {
    try write(record, to: "\(record.id).json", in: devices)
  }

  func remove(_ id: String) throws(ServiceError) {
    guard devices.contains("\(id).json") else { return }
    do throws(IOError) {
      try devices.unlink("\(id).json")
      try devices.sync()
    } catch { throw ServiceError(error) }
  }

  private func write(
    _ record: some Encodable, to name: String, in folder: ImageFolder
  ) throws(ServiceError) {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    do {
      try folder.replace(name, with: [UInt8](try encoder.encode(record)))
    } catch let error as IOError {
      throw ServiceError(error)
    } catch {
      throw ServiceError(.ioError, "\(name) cannot be written: \(error)")
    }
  }

  private static func read<Record: Decodable>(
    _ name: String, in folder: ImageFolder
  ) throws(ServiceError) -> Record? {
    guard folder.contains(name) else { return nil }
    do {
      let bytes = try folder.bytes(of: name, limit: 16 << 20)
      return try JSONDecoder().decode(Record.self, from: Data(bytes))
    } catch let error as IOError {
      throw ServiceError(error)
    } catch {
      throw ServiceError(.ioError, "\(folder.path)/\(name) is no record of this service: \(error)")
    }
  }
}
