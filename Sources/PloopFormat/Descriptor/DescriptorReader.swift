extension Descriptor {
  /// Reads a descriptor, which may be anybody's.
  ///
  /// - Parameter file: all of its bytes.
  /// - Throws: `descriptor-invalid`, with the line where there is one.
  package init(parsing file: [UInt8]) throws(DescriptorError) {
    let document = try XMLReader.read(file)
    var rootFields = try ElementFields(document, "the descriptor")
    var disk = try rootFields.requiredElement("Disk_Parameters")
    let sizeSectors = try disk.requiredNumber("Disk_size")
    guard sizeSectors > 0, sizeSectors < UInt64(Int64.max) / Geometry.sectorBytes else {
      throw disk.fault("a disk of \(sizeSectors) sectors")
    }
    let cylinders = try disk.number("Cylinders")
    let heads = try disk.number("Heads")
    _ = try disk.number("Sectors")
    _ = try disk.number("Padding")

    var storageData = try rootFields.requiredElement("StorageData")
    var storage = try storageData.requiredElement("Storage")
    guard try storage.number("Start") ?? 0 == 0 else {
      throw storage.fault("the storage does not begin at sector 0; split disks are not supported")
    }
    _ = try storage.number("End")
    let clusterSectors = try storage.requiredNumber("Blocksize")
    guard Descriptor.clusterSectorsRange.contains(clusterSectors),
      clusterSectors.nonzeroBitCount == 1
    else {
      throw storage.fault(
        "clusters of \(clusterSectors) sectors; powers of two from 8 to 131072 are supported")
    }
    var images: [GUID: Image] = [:]
    var order: [GUID] = []
    for fields in try storage.elements("Image") {
      let image = try Image(fields)
      guard images.updateValue(image, forKey: image.guid) == nil else {
        throw fields.fault("two images are of the shot \(image.guid)")
      }
      order.append(image.guid)
    }

    var snapshots = try rootFields.requiredElement("Snapshots")
    let top = try snapshots.guid("TopGUID") ?? .top
    var shots: [GUID: Shot] = [:]
    var isBaseRaw = false
    for fields in try snapshots.elements("Shot") {
      let shot = try Descriptor.shot(fields, images)
      guard shots.updateValue(shot, forKey: shot.guid) == nil else {
        throw fields.fault("two shots are called \(shot.guid)")
      }
      // With a raw base libploop says Plain of every image; it means the oldest.
      if shot.parent == .none, images[shot.guid]?.isPlain == true { isBaseRaw = true }
    }
    if let image = order.first(where: { shots[$0] == nil }) {
      throw snapshots.fault("the image of \(image) belongs to no shot")
    }
    var root = XMLElement(document.name)
    root.attributes = document.attributes
    try self.init(
      root: root, sizeSectors: sizeSectors, clusterSectors: clusterSectors,
      shots: order.compactMap { shots[$0] }, topGUID: top, isBaseRaw: isBaseRaw)
    if let cylinders, let heads, cylinders > 0, heads > 0 {
      (self.cylinders, self.heads) = (cylinders, heads)
    }
    extras = [
      .root: rootFields.rest, .diskParameters: disk.rest, .storageData: storageData.rest,
      .storage: storage.rest, .snapshots: snapshots.rest,
    ].filter { !$0.value.isEmpty }
  }

  private struct Image {
    let guid: GUID
    let file: String
    let isPlain: Bool
    let extras: [XMLElement]

    init(_ fields: ElementFields) throws(DescriptorError) {
      var fields = fields
      guid = try fields.requiredGUID("GUID")
      let type = try fields.requiredText("Type")
      guard type == "Compressed" || type == "Plain" else {
        throw fields.fault("the type of an image is \(type.prefix(40)), not Compressed or Plain")
      }
      isPlain = type == "Plain"
      file = try fields.requiredText("File")
      let name = file.unicodeScalars.split(
        separator: "/", omittingEmptySubsequences: false
      ).last.map(String.init)
      guard file.utf8.count < 4096, let name, name != "", name != ".", name != ".." else {
        throw fields.fault("\(file.prefix(80)) is no name of a file")
      }
      extras = fields.rest
    }
  }

  private static func shot(
    _ fields: ElementFields, _ images: [GUID: Image]
  ) throws(DescriptorError) -> Shot {
    var fields = fields
    let guid = try fields.requiredGUID("GUID")
    let parent = try fields.requiredGUID("ParentGUID")
    guard let image = images[guid] else { throw fields.fault("the shot \(guid) has no image") }
    var shot = Shot(guid: guid, parent: parent, file: image.file)
    for mark in Mark.allCases where try fields.element(mark.rawValue) != nil { shot.mark = mark }
    shot.imageExtras = image.extras
    shot.shotExtras = fields.rest
    return shot
  }
}

/// Takes an element apart by name; what nobody asked for is left in ``rest``.
private struct ElementFields {
  private let name: String
  private let line: Int
  private(set) var rest: [XMLElement]

  init(_ element: XMLElement, _ name: String? = nil) throws(DescriptorError) {
    self.name = name ?? "<\(element.name)>"
    line = element.line
    rest = element.children
    guard element.text.isEmpty || element.text.allSatisfy(\.isWhitespace) else {
      throw fault("\(self.name) has a text where elements are expected")
    }
  }

  func fault(_ detail: String) -> DescriptorError {
    DescriptorError(.invalid, "line \(line): \(detail)")
  }

  private mutating func take(_ name: String) throws(DescriptorError) -> XMLElement? {
    let found = rest.filter { $0.name == name }
    guard found.count <= 1 else { throw fault("\(self.name) has more than one <\(name)>") }
    rest.removeAll { $0.name == name }
    return found.first
  }

  mutating func elements(_ name: String) throws(DescriptorError) -> [ElementFields] {
    var fields: [ElementFields] = []
    for element in rest where element.name == name { fields.append(try ElementFields(element)) }
    guard !fields.isEmpty else { throw fault("\(self.name) has no <\(name)>") }
    rest.removeAll { $0.name == name }
    return fields
  }

  mutating func element(_ name: String) throws(DescriptorError) -> ElementFields? {
    guard let element = try take(name) else { return nil }
    return try ElementFields(element)
  }

  mutating func requiredElement(_ name: String) throws(DescriptorError) -> ElementFields {
    guard let element = try element(name) else { throw fault("\(self.name) has no <\(name)>") }
    return element
  }

  mutating func text(_ name: String) throws(DescriptorError) -> String? {
    guard let element = try take(name) else { return nil }
    guard element.children.isEmpty, !element.text.isEmpty else {
      throw DescriptorError(.invalid, "line \(element.line): <\(name)> has no text")
    }
    return element.text
  }

  mutating func requiredText(_ name: String) throws(DescriptorError) -> String {
    guard let text = try text(name) else { throw fault("\(self.name) has no <\(name)>") }
    return text
  }

  mutating func number(_ name: String) throws(DescriptorError) -> UInt64? {
    guard let text = try text(name) else { return nil }
    guard text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
      let number = UInt64(text)
    else { throw fault("<\(name)> is \(text.prefix(40)), which is no number") }
    return number
  }

  mutating func requiredNumber(_ name: String) throws(DescriptorError) -> UInt64 {
    guard let number = try number(name) else { throw fault("\(self.name) has no <\(name)>") }
    return number
  }

  mutating func guid(_ name: String) throws(DescriptorError) -> GUID? {
    guard let text = try text(name) else { return nil }
    guard let guid = GUID(text) else {
      throw fault("<\(name)> is \(text.prefix(60)), which is no GUID in braces")
    }
    return guid
  }

  mutating func requiredGUID(_ name: String) throws(DescriptorError) -> GUID {
    guard let guid = try guid(name) else { throw fault("\(self.name) has no <\(name)>") }
    return guid
  }
}
