internal import Glibc
package import PloopFormat
package import PloopIO

/// A DiskDescriptor.xml where it lies. Whoever changes it holds its lock (``DescriptorLocks``).
package struct DescriptorFile: Sendable {
  package let folder: ImageFolder
  package let name: String

  package init(in folder: ImageFolder, name: String = Descriptor.fileName) {
    self.folder = folder
    self.name = name
  }

  package var path: String {
    folder.path.hasSuffix(":") ? folder.path + name : "\(folder.path)/\(name)"
  }

  /// Reads it, whoever wrote it.
  ///
  /// - Throws: `.descriptor` when it is no descriptor, `.io` when it cannot be read.
  package func read() throws(DeviceError) -> Descriptor {
    let bytes: [UInt8]
    do throws(IOError) {
      bytes = try folder.bytes(of: name, limit: XMLReader.Limits.bytes)
    } catch {
      guard error.code == EOVERFLOW else { throw DeviceError(error) }
      let limit = "it has more than \(XMLReader.Limits.bytes) bytes"
      throw DeviceError(DescriptorError(.invalid, limit), path: path)
    }
    do throws(DescriptorError) {
      return try Descriptor(parsing: bytes)
    } catch {
      throw DeviceError(error, path: path)
    }
  }

  /// Replaces it: after a crash there is the old one or the new one, and once this returns the new
  /// one. After an error it may be either, and is to be read again.
  package func replace(with descriptor: Descriptor) throws(DeviceError) {
    try prepare(with: descriptor)
    try commit()
  }

  /// The part of a replacement that takes time: the new one is durable beside the old one, and
  /// means nothing yet. OpenVZ's tools overwrite what is left there.
  package func prepare(with descriptor: Descriptor) throws(DeviceError) {
    try converting { () throws(IOError) in try folder.prepare(name, with: descriptor.file) }
  }

  /// The part that counts: one rename, made durable.
  package func commit() throws(DeviceError) {
    try publish()
    try converting { () throws(IOError) in try folder.sync() }
  }

  /// The rename alone. If it fails there is the old one; what comes after it may be either after a
  /// crash until the folder is synced.
  func publish() throws(DeviceError) {
    try converting { () throws(IOError) in try folder.publish(name) }
  }

  /// Drops what was prepared.
  package func abandon() throws(DeviceError) {
    try converting { () throws(IOError) in try folder.removeIfThere("\(name).tmp") }
  }
}
