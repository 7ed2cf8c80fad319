import PloopFormat

/// Texts of descriptors, with what tests change in them.
enum DescriptorText {
  static func guid(_ digit: Int) -> String {
    let digits = String(repeating: String(digit, radix: 16), count: 8)
    return "{\(digits)-0000-4000-8000-000000000000}"
  }

  static let top = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
  static let none = "{00000000-0000-0000-0000-000000000000}"

  /// As `ploop init` and two `ploop snapshot` leave it.
  static let chain = text([
    (guid(1), none, "root.hds"), (guid(2), guid(1), "root.hds.\(guid(11))"),
    (top, guid(2), "root.hds.\(guid(12))"),
  ])

  /// A chain with a branch: the top and 3 both build on 1, and 2 on 3.
  static let tree = text([
    (guid(1), none, "root.hds"), (guid(3), guid(1), "three"), (guid(2), guid(3), "two"),
    (top, guid(1), "top"),
  ])

  static func text(
    _ shots: [(guid: String, parent: String, file: String)], type: String = "Compressed"
  ) -> String {
    let images = shots.map {
      """
            <Image>
              <GUID>\($0.guid)</GUID>
              <Type>\(type)</Type>
              <File>\($0.file)</File>
            </Image>

      """
    }.joined()
    let snapshots = shots.map {
      """
          <Shot>
            <GUID>\($0.guid)</GUID>
            <ParentGUID>\($0.parent)</ParentGUID>
          </Shot>

      """
    }.joined()
    return """
      <?xml version="1.0"?>
      <Parallels_disk_image>
        <Disk_Parameters>
          <Disk_size>16384</Disk_size>
          <Cylinders>32</Cylinders>
          <Heads>16</Heads>
          <Sectors>32</Sectors>
          <Padding>0</Padding>
        </Disk_Parameters>
        <StorageData>
          <Storage>
            <Start>0</Start>
            <End>16384</End>
            <Blocksize>128</Blocksize>
      \(images)    </Storage>
        </StorageData>
        <Snapshots>
          <TopGUID>\(top)</TopGUID>
      \(snapshots)  </Snapshots>
      </Parallels_disk_image>

      """
  }

  static func read(_ text: String) throws(DescriptorError) -> Descriptor {
    try Descriptor(parsing: Array(text.utf8))
  }

  /// Why a text is refused; nil if it is not.
  static func fault(_ bytes: [UInt8]) -> String? {
    do throws(DescriptorError) {
      _ = try Descriptor(parsing: bytes)
      return nil
    } catch {
      return error.code == .invalid ? error.detail : "\(error)"
    }
  }
}

extension String {
  /// With the first place of a text changed; the test is wrong when there is none.
  func changing(_ text: String, to other: String) -> String {
    guard let range = firstRange(of: text) else { preconditionFailure("there is no \(text)") }
    return replacingSubrange(range, with: other)
  }

  private func replacingSubrange(_ range: Range<String.Index>, with other: String) -> String {
    self[..<range.lowerBound] + other + self[range.upperBound...]
  }
}
