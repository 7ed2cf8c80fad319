internal import PloopBackup
internal import PloopIO

/// The manifest of a point of a backup. Input: 0 for the file as it is; else what the checksum is of, and the rest
/// is put around it.
enum ManifestTarget {
  static func run(_ input: [UInt8]) throws {
    var head = InputHead(input)
    let isWhole = head.byte() == 0
    let body = head.body
    let file =
      isWhole
      ? body
      : Array(#"{"manifest":"#.utf8) + body
        + Array("\",\"sha256\":\"\(SHA256.hexDigest(body))\"}\n".utf8.dropFirst())
    guard let manifest = try? PointManifest(parsing: file, path: "p.json") else { return }
    try promise(manifest.geometry != nil, "a manifest of no disk")
    let again = try PointManifest(parsing: manifest.file, path: "p.json")
    try promise(again == manifest, "a manifest changes when it is written")
    _ = manifest.wantsEverMore
    if let geometry = manifest.geometry {
      let new = PointManifest(
        "p", device: manifest.device, mode: manifest.mode, geometry: geometry,
        wanted: Bitmap(count: 9), pointInTime: manifest.pointInTime)
      let read = try PointManifest(parsing: new.file, path: "p.json")
      try promise(read == new && read.geometry == geometry, "a new manifest is another one")
    }
    if BackupNames.isValid(manifest.id) {
      try promise(!manifest.id.utf8.contains { $0 == 0 || $0 == 0x2F }, "a name leads elsewhere")
    }
  }
}
