internal import PloopDevice
package import PloopIO

/// A folder of backups: a folder for each device, in it one for each chain (``BackupChain``).
package struct DirectoryTarget: Sendable {
  package let folder: ImageFolder
  private let locks: DescriptorLocks

  /// - Parameter locks: of the service that may have points attached for reading.
  package init(in folder: ImageFolder, locks: DescriptorLocks = DescriptorLocks()) {
    self.folder = folder
    self.locks = locks
  }

  /// The devices that have backups here, in order of their names.
  package func devices() throws(BackupError) -> [String] {
    try onTarget { () throws(IOError) in try DirectoryTarget.folders(in: folder) }
  }

  /// The chains of a device, in order of their names. Those are of their full backups, and grow with time
  /// if the backups' do.
  package func chains(of device: String) throws(BackupError) -> [String] {
    guard try devices().contains(device) else { return [] }
    return try onTarget { () throws(IOError) in
      try DirectoryTarget.folders(in: folder.folder(beneath: device))
    }
  }

  /// - Throws: `.notFound`.
  package func chain(_ name: String, of device: String) throws(BackupError) -> BackupChain {
    guard try chains(of: device).contains(name) else {
      throw BackupError(.notFound, "\(folder.path): there is no chain \(device)/\(name)")
    }
    return try open("\(device)/\(name)") { (path) throws(IOError) in
      try folder.folder(beneath: path)
    }
  }

  /// Makes a chain, with the folders that are missing, or opens one that is there.
  ///
  /// - Throws: `.mismatch` when a name cannot be one (``BackupNames/isValid(_:)``); `.target`.
  package func makeChain(_ name: String, of device: String) throws(BackupError) -> BackupChain {
    guard BackupNames.isValid(name), BackupNames.isValid(device) else {
      throw BackupError(.mismatch, "\(device)/\(name) cannot be the name of a chain")
    }
    return try open("\(device)/\(name)") { (path) throws(IOError) in
      try folder.makeFolder(beneath: path)
    }
  }

  private func open(
    _ path: String, _ body: (String) throws(IOError) -> ImageFolder
  ) throws(BackupError) -> BackupChain {
    BackupChain(in: try onTarget { () throws(IOError) in try body(path) }, locks: locks)
  }

  private static func folders(in folder: ImageFolder) throws(IOError) -> [String] {
    try folder.names().filter { name in
      BackupNames.isValid(name) && (try? folder.folder(beneath: name)) != nil
    }.sorted()
  }
}
