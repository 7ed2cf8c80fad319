internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Images that a job's parameters name, which no device need have: an `image`, the `deltas` of a chain,
/// or those of a `descriptor`, to its top or a `snapshot`.
enum NamedImages: Sendable {
  case image(String)
  case deltas([AttachRequest.DeltaReference])
  case descriptor(AttachRequest.DescriptorReference)

  /// - Returns: nil where none is named.
  /// - Throws: `invalid-value` where they are named in several ways.
  init?(_ parameters: inout JobParameters) throws(ServiceError) {
    let image = try parameters.text("image")
    let deltas = try parameters.deltas("deltas")
    let descriptor = try parameters.text("descriptor")
    let snapshot = try parameters.guid("snapshot")
    guard snapshot == nil || descriptor != nil else {
      throw parameters.wrong("snapshot", "goes with a descriptor")
    }
    switch (image, deltas, descriptor) {
    case (nil, nil, nil): return nil
    case (let image?, nil, nil): self = .image(image)
    case (nil, let deltas?, nil) where !deltas.isEmpty: self = .deltas(deltas)
    case (nil, nil, let path?):
      self = .descriptor(AttachRequest.DescriptorReference(path: path, snapshot: snapshot))
    default: throw parameters.wrong("image", "one of image, deltas and descriptor is expected")
    }
  }

  var parameters: [String: JobValue] {
    switch self {
    case .image(let path): return ["image": .text(path)]
    case .deltas(let deltas):
      let values = deltas.map { delta -> JobValue in
        .object(["path": .text(delta.path), "format": .text(delta.isRaw ? "raw" : "ploop1")])
      }
      return ["deltas": .list(values)]
    case .descriptor(let descriptor):
      var parameters: [String: JobValue] = ["descriptor": .text(descriptor.path)]
      parameters["snapshot"] = descriptor.snapshot.map { .text($0.description) }
      return parameters
    }
  }
}

extension JobParameters {
  /// Files of a chain, oldest first: paths, or objects with `path` and `format` as an attach has them.
  fileprivate mutating func deltas(
    _ name: String
  ) throws(ServiceError) -> [AttachRequest.DeltaReference]? {
    guard let items = try list(name) else { return nil }
    var deltas: [AttachRequest.DeltaReference] = []
    for (index, item) in items.enumerated() {
      switch item {
      case .text(let path): deltas.append(AttachRequest.DeltaReference(path: path))
      case .object(let members):
        var member = JobParameters(members, at: [name, String(index)], of: self)
        let path = try member.requiredText("path")
        let format = try member.text("format") ?? "ploop1"
        guard ["raw", "ploop1"].contains(format) else {
          throw member.wrong("format", "ploop1 or raw is expected")
        }
        try member.finish()
        deltas.append(AttachRequest.DeltaReference(path: path, isRaw: format == "raw"))
      default: throw wrong(name, "a list of paths is expected")
      }
    }
    return deltas
  }
}

/// Files that were opened, and what keeps them as they are.
struct OpenImages {
  /// Oldest first.
  var deltas: [DeviceRecord.Delta]
  var sources: [DeltaSource]
  var locks: [DescriptorLock] = []

  var paths: [String] { deltas.map(\.path) }
}

extension Service {
  /// Opens images for looking at them, or for repair, with the locks of OpenVZ's tools that go with that.
  func open(_ images: NamedImages, forRepair: Bool = false) throws(ServiceError) -> OpenImages {
    switch images {
    case .image(let path):
      let delta = DeviceRecord.Delta(
        path: try roots.locate(path, pointer: "/params/image").path, isRaw: false)
      return try open([delta], forRepair) { _ in "/params/image" }
    case .deltas(let references):
      var deltas: [DeviceRecord.Delta] = []
      for (level, reference) in references.enumerated() {
        let location = try roots.locate(reference.path, pointer: "/params/deltas/\(level)")
        deltas.append(DeviceRecord.Delta(path: location.path, isRaw: reference.isRaw))
      }
      return try open(deltas, forRepair) { "/params/deltas/\($0)" }
    case .descriptor(let reference):
      do throws(ServiceError) {
        let chain = try plan(
          descriptor: reference.path, at: reference.snapshot, readonly: !forRepair)
        var images = try open(chain.deltas, forRepair) { _ in "/descriptor" }
        images.locks += chain.locks
        return images
      } catch {
        var error = error
        if error.pointer == "/descriptor" { error.pointer = "/params/descriptor" }
        if error.pointer == "/at" { error.pointer = "/params/snapshot" }
        throw error
      }
    }
  }

  private func open(
    _ deltas: [DeviceRecord.Delta], _ forRepair: Bool, pointer: (Int) -> String
  ) throws(ServiceError) -> OpenImages {
    var images = OpenImages(deltas: deltas, sources: [])
    for (level, delta) in deltas.enumerated() {
      let location = try roots.locate(delta.path, pointer: pointer(level))
      let folder = try roots.folder(of: location, pointer: pointer(level))
      if forRepair { try requireNoUser(of: location, pointer: pointer(level)) }
      let file = try roots.open(location, in: folder, writable: forRepair, pointer: pointer(level))
      images.sources.append(
        DeltaSource(file: file, folder: folder, name: location.name, isRaw: delta.isRaw))
      if forRepair, let lock = try lock(in: folder, readonly: false) { images.locks.append(lock) }
    }
    return images
  }

  /// - Throws: `image-in-use` with the device, or the export or job of one, that has a file in its chain.
  private func requireNoUser(of file: Roots.Location, pointer: String) throws(ServiceError) {
    guard let user = state.withLock({ $0.files.user(of: file) }) else { return }
    throw ServiceError(
      .imageInUse, "\(file.path) is a part of the \(user.holder.kind) \(user.holder.id)",
      remedy: "detach the device first", errno: "EBUSY", holder: user.holder, pointer: pointer)
  }
}
