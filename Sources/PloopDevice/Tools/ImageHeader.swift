package import PloopFormat
package import PloopIO

/// What the header of an image says by itself, whoever has it open.
package enum ImageHeader {
  /// - Throws: `.format` for what is no image; `.io`.
  package static func geometry(
    of name: String, in folder: ImageFolder
  ) throws(DeviceError) -> Geometry {
    let (file, bytes) = try converting { () throws(IOError) in
      let file = try folder.open(name, writable: false)
      return (file, try file.size())
    }
    let header = try Device.header(of: file)
    do throws(FormatError) { return try header.geometry(fileBytes: bytes) } catch {
      throw DeviceError(error, level: 0, path: file.path)
    }
  }
}
