extension Descriptor {
  /// The file, in the form that OpenVZ's tools write.
  package var file: [UInt8] {
    var root = self.root
    root.children = [diskParameters, storageData, snapshots] + others(.root)
    return root.file
  }

  private func others(_ section: Section) -> [XMLElement] { extras[section] ?? [] }

  private var diskParameters: XMLElement {
    // As they come from the size, so that a disk that has grown keeps cylinders and heads.
    let (product, overflow) = cylinders.multipliedReportingOverflow(by: heads)
    let sectors = overflow ? 1 : max(1, sizeSectors / product)
    return XMLElement(
      "Disk_Parameters",
      children: [
        XMLElement("Disk_size", String(sizeSectors)), XMLElement("Cylinders", String(cylinders)),
        XMLElement("Heads", String(heads)), XMLElement("Sectors", String(sectors)),
        XMLElement("Padding", "0"),
      ] + others(.diskParameters))
  }

  private var storageData: XMLElement {
    let head = [
      XMLElement("Start", "0"), XMLElement("End", String(sizeSectors)),
      XMLElement("Blocksize", String(clusterSectors)),
    ]
    let images = shots.map { shot in
      XMLElement(
        "Image",
        children: [
          XMLElement("GUID", shot.guid.description),
          // libploop takes the last word on the base's type from any image, so all say the same.
          XMLElement("Type", isBaseRaw ? "Plain" : "Compressed"),
          XMLElement("File", shot.file),
        ] + shot.imageExtras)
    }
    let storage = XMLElement("Storage", children: head + others(.storage) + images)
    return XMLElement("StorageData", children: others(.storageData) + [storage])
  }

  private var snapshots: XMLElement {
    let shots = self.shots.map { shot in
      XMLElement(
        "Shot",
        children: [
          XMLElement("GUID", shot.guid.description),
          XMLElement("ParentGUID", shot.parent.description),
        ] + (shot.mark.map { [XMLElement($0.rawValue)] } ?? []) + shot.shotExtras)
    }
    return XMLElement(
      "Snapshots",
      children: [XMLElement("TopGUID", topGUID.description)] + shots + others(.snapshots))
  }
}
