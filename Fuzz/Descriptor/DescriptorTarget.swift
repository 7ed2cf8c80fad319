internal import PloopFormat

/// DiskDescriptor.xml. Input: the file.
enum DescriptorTarget {
  static func run(_ input: [UInt8]) throws {
    let descriptor: Descriptor
    do { descriptor = try Descriptor(parsing: input) } catch {
      return try promise(!error.detail.isEmpty, "refused without a word")
    }
    let again = try Descriptor(parsing: descriptor.file)
    try promise(again == descriptor, "a descriptor changes when it is written")
    try promise(descriptor.shots.count <= Descriptor.shotLimit, "too many shots")
    for shot in descriptor.shots {
      let chain = try descriptor.chain(to: shot.guid)
      try promise(chain.last?.guid == shot.guid, "a chain ends elsewhere")
      try promise(chain.first?.parent == GUID.none, "a chain begins in its middle")
      try promise(GUID(shot.guid.description) == shot.guid, "a GUID changes when it is written")
    }
    try promise(descriptor.shot(descriptor.topGUID) != nil, "there is no top")
  }
}
