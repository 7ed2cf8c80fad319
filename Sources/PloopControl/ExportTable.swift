internal import PloopIO
package import PloopNBD
internal import Synchronization

/// The doors to the disks, by name. NBD clients find them here.
package final class ExportTable: ExportDirectory {
  struct Entry: Sendable {
    let device: String
    /// Of no other one that ever had a name.
    let number: UInt64
    var record: DeviceRecord.Export
    /// Nil until the device is attached.
    var door: DeviceExport?
    /// Whether clients may come in.
    var isOpen = false
  }

  private let entries = Locked<[String: Entry]>([:])
  private let lastNumber = Atomic<UInt64>(0)

  // MARK: For NBD clients

  package func list(for visitor: Visitor) -> [(name: [UInt8], summary: String)] {
    let open = entries.withLock { $0.filter { $0.value.isOpen } }
    return open.sorted { $0.key < $1.key }.compactMap { name, entry in
      do throws(DoorRefusal) { try entry.record.access?.require(visitor, of: name) } catch {
        return nil
      }
      return (Array(name.utf8), entry.record.summary)
    }
  }

  package func export(
    named name: [UInt8], for visitor: Visitor
  ) throws(DoorRefusal) -> DeviceExport? {
    guard let text = String(validating: name, as: UTF8.self) else { return nil }
    let entry = entries.withLock { $0[text] }
    guard let entry else { return nil }
    // Strangers do not learn how it is.
    try entry.record.access?.require(visitor, of: text)
    guard entry.isOpen, let door = entry.door else {
      throw DoorRefusal(.leaving, "the export \(text) takes no clients now")
    }
    return door
  }

  // MARK: For the service

  /// Takes a name; nobody can come in yet.
  ///
  /// - Throws: `export-exists`, or `writer-exists` for a second writable door that was not asked
  ///   for as such.
  func reserve(_ record: DeviceRecord.Export, device: String) throws(ServiceError) {
    try entries.withLock { entries throws(ServiceError) in
      if let other = entries[record.name] {
        throw ServiceError(
          .exportExists, "the export \(record.name) exists, for the device \(other.device)",
          errno: "EEXIST", holder: .init(kind: "device", id: other.device))
      }
      let writer = entries.values.first { $0.device == device && !$0.record.readonly }
      if let writer, !record.readonly, !record.sharedWriters {
        throw ServiceError(
          .writerExists,
          "the device \(device) can be written through the export \(writer.record.name) already",
          cause: "two writers that do not know of each other damage most file systems",
          remedy: "make this one readonly, or say \"shared_writers\":true",
          holder: .init(kind: "export", id: writer.record.name))
      }
      let number = lastNumber.wrappingAdd(1, ordering: .relaxed).newValue
      entries[record.name] = Entry(device: device, number: number, record: record, door: nil)
    }
  }

  /// Gives a name its disk, and lets clients in.
  func open(_ record: DeviceRecord.Export, _ door: DeviceExport) {
    entries.withLock { entries in
      entries[record.name]?.record = record
      entries[record.name]?.door = door
      entries[record.name]?.isOpen = true
    }
  }

  /// Gives a door to those who come from now on; those inside stay behind the one they came by.
  func renew(_ name: String, _ door: DeviceExport) {
    entries.withLock { entries in
      guard entries[name]?.door != nil else { return }
      entries[name]?.door = door
    }
  }

  /// Lets clients in again, or lets nobody in any more; those inside stay.
  func set(_ names: [String], open isOpen: Bool) {
    entries.withLock { entries in
      for name in names { entries[name]?.isOpen = isOpen }
    }
  }

  func remove(_ name: String) { entries.withLock { _ = $0.removeValue(forKey: name) } }

  func removeAll(of device: String) {
    entries.withLock { entries in entries = entries.filter { $0.value.device != device } }
  }

  func entry(_ name: String) -> Entry? { entries.withLock { $0[name] } }

  /// In the order of their names.
  func entries(of device: String? = nil) -> [Entry] {
    entries.withLock { entries in
      entries.values.filter { device == nil || $0.device == device }
        .sorted { $0.record.name < $1.record.name }
    }
  }
}
