internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// New disks: an image with nothing in it, and its descriptor.

/// An image that is made for a device, and can be unmade while nobody has used it.
struct NewImage {
  let location: Roots.Location
  let descriptor: Roots.Location
  let folder: ImageFolder
  let geometry: Geometry
  /// An attempt of ours that a crash has ended is in its place, and nobody's bytes.
  let replacesOurs: Bool

  func make() throws(ServiceError) {
    if replacesOurs { remove() }
    try converting { () throws(DeviceError) in
      try ImageCreator.create(in: folder, name: location.name, geometry: geometry)
      do throws(DeviceError) {
        try DescriptorFile(in: folder, name: descriptor.name)
          .replace(with: Descriptor(new: geometry, file: location.name))
      } catch {
        remove()
        throw error
      }
    }
  }

  /// The image is the last to go: while it is there, the rest is known for our own.
  func remove() {
    for name in [descriptor.name, "\(descriptor.name).lck", location.name] {
      try? folder.unlink(name)
    }
    try? folder.sync()
  }
}

extension Service {
  /// The name of a new disk's image in its folder, as OpenVZ's tools have it.
  static let imageName = "root.hds"

  /// Everything that can be refused about a new image, before it is made.
  ///
  /// Its place is the device's own from now on, and until the device is forgotten: what is found there
  /// is nobody else's, and what is made there nobody else attaches.
  func plan(
    _ create: AttachRequest.CreateRequest, for id: String
  ) throws(ServiceError) -> NewImage {
    let geometry = try Service.geometry(create)
    let location = try roots.locate(create.directory, pointer: "/create/directory")
      .appending(Service.imageName)
    let needed = geometry.headerBytes + geometry.clusterBytes
    try Service.requireSpace(
      needed, of: roots.space(around: location)?.freeBytes, for: location.path)
    do throws(ServiceError) {
      try state.withLock { state throws(ServiceError) in
        try state.files.claim([(location, nil)], for: .device(id), readonly: false)
      }
    } catch { throw imageExists(location, "\(error.detail)", holder: error.holder) }
    let folder = try roots.makeFolder(of: location, pointer: "/create/directory")
    let descriptor = location.sibling(Descriptor.fileName)
    let replacesOurs = folder.contains(location.name) && wasBegun(location, in: folder)
    for file in [location, descriptor] where folder.contains(file.name) && !replacesOurs {
      throw imageExists(file, "\(file.path) exists")
    }
    return NewImage(
      location: location, descriptor: descriptor, folder: folder, geometry: geometry,
      replacesOurs: replacesOurs)
  }

  private func imageExists(
    _ location: Roots.Location, _ detail: String, holder: ServiceError.Holder? = nil
  ) -> ServiceError {
    ServiceError(
      .imageExists, detail, remedy: "attach it, or choose another directory", errno: "EEXIST",
      holder: holder, pointer: "/create/directory")
  }

  private static func geometry(
    _ create: AttachRequest.CreateRequest
  ) throws(ServiceError) -> Geometry {
    do throws(NewDiskFault) {
      return try Geometry(
        newDisk: create.version, clusterBytes: create.clusterBytes, sizeBytes: create.sizeBytes)
    } catch {
      var error = ServiceError(
        error,
        "a disk with clusters of \(create.clusterBytes) bytes cannot have \(create.sizeBytes) bytes",
        pointer: "/create/size")
      error.pointer = error.pointer ?? "/create/cluster_size"
      throw error
    }
  }
}
