internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Who uses which file beneath the roots, or may be about to.
struct ImageUsers {
  private var byPlace: [Roots.Location: [ImageInfo.User]] = [:]
  private var byIdentity: [FileIdentity: [ImageInfo.User]] = [:]
  /// Whose is everything beneath a place.
  private var beneath: [(place: Roots.Location, user: ImageInfo.User)] = []
  /// Of devices that have one.
  private var descriptors: [String: String] = [:]
  private let scan: ImageScan

  /// - Parameter ignored: a job whose own claims do not count.
  init(_ scan: ImageScan, of service: Service, ignoring ignored: String? = nil) {
    self.scan = scan
    let roots = service.roots
    for tree in scan.trees {
      for shot in tree.descriptor.shots {
        guard let place = try? roots.resolve(shot.file, from: tree.location, pointer: "") else {
          continue
        }
        let isTop = shot.guid == tree.descriptor.topGUID
        add(
          ImageInfo.User(
            kind: "descriptor", id: tree.location.path,
            snapshot: isTop ? nil : shot.guid.description, isTop: isTop), at: place)
      }
    }
    let (records, intents, claims) = service.state.withLock { state in
      (
        state.devices.values.compactMap(\.now.record) + state.unclosed.values,
        Array(state.unfinished.values), state.files.claims
      )
    }
    for record in records {
      add(record.deltas, of: record.id, roots)
      descriptors[record.id] = record.descriptor
      if let path = record.descriptor, let place = try? roots.locate(path, pointer: "") {
        add(ImageInfo.User(kind: "device", id: record.id, isTop: true), at: place)
      }
    }
    for intent in intents { add(intent.deltas, of: intent.id, roots) }
    for (key, use) in claims where use.user.holder.id != ignored {
      let user = ImageInfo.User(
        kind: use.user.holder.kind, id: use.user.holder.id, isTop: !use.isLower)
      switch key {
      case .name(let place): add(user, at: place)
      case .file(let identity): byIdentity[identity, default: []].append(user)
      }
    }
    let places =
      service.targets.targets.map {
        ($0.place, ImageInfo.User(kind: "target", id: $0.name, isTop: true))
      }
      + service.placesOfJobs.map { ($0.target.place, ImageInfo.User(kind: "job", id: $0.job.id)) }
    for (place, user) in places {
      switch place {
      case .directory(let path):
        guard let place = try? roots.locate(path, pointer: "") else { continue }
        beneath.append((place, user))
      case .file(let path, _):
        guard let place = try? roots.locate(path, pointer: "") else { continue }
        add(user, at: place)
        // A backup that was begun lies beside it.
        for file in scan.files
        where file.location.parent == place.parent
          && FilePointTarget.isPart(file.location.name, of: place.name)
        {
          add(user, at: file.location)
        }
      case .nbd: continue
      }
    }
    for job in service.jobs.state.withLock({ Array($0.jobs.values) })
    where job.type != CleanJob.type {
      for text in job.parameters.values.flatMap(\.texts) {
        guard text.contains(":") || roots.names.count == 1,
          let place = try? roots.locate(text, pointer: "")
        else { continue }
        beneath.append((place, ImageInfo.User(kind: "job", id: job.id)))
      }
    }
    for file in scan.files {
      guard let id = service.keptBackup(at: file.location) else { continue }
      add(ImageInfo.User(kind: "backup", id: id, isTop: true), at: file.location)
    }
    // Whoever uses one name of a file uses the file.
    for file in scan.files {
      byIdentity[file.identity, default: []] += byPlace[file.location] ?? []
    }
  }

  private mutating func add(_ user: ImageInfo.User, at place: Roots.Location) {
    byPlace[place, default: []].append(user)
  }

  private mutating func add(
    _ deltas: [DeviceRecord.Delta], of device: String, _ roots: Roots
  ) {
    for (level, delta) in deltas.enumerated() {
      guard let place = try? roots.locate(delta.path, pointer: "") else { continue }
      let isTop = level == deltas.count - 1
      add(
        ImageInfo.User(
          kind: "device", id: device, snapshot: isTop ? nil : delta.guid, isTop: isTop), at: place)
    }
  }

  /// A file with its users, and what follows from them.
  func judged(_ file: ImageScan.File) -> ImageInfo {
    var info = file.info
    var users = (byPlace[file.location] ?? []) + (byIdentity[file.identity] ?? [])
    users += beneath.filter { $0.place.holds(file.location) }.map(\.user)
    if info.kind == .savedIndex, let name = ImageScan.image(keeping: file.location.name),
      scan.files.contains(where: { $0.location == file.location.sibling(name) })
    {
      users.append(ImageInfo.User(kind: "image", id: file.location.sibling(name).path, isTop: true))
    }
    info.users = ImageUsers.merged(users)
    info.isShared = owners(info.users).count > 1
    if !info.users.isEmpty || info.kind == .descriptor {
      info.state = .used
    } else if let reason = whyUnknown(file) {
      info.reason = reason
    } else {
      info.state = .orphaned
      info.reason =
        info.kind == .savedIndex
        ? "the image whose index it keeps is gone"
        : "no descriptor, device, job or target names it"
    }
    return info
  }

  /// A device is one with its descriptor, and so is whoever only reads.
  private func owners(_ users: [ImageInfo.User]) -> Set<String> {
    Set(
      users.compactMap { user in
        switch user.kind {
        case "descriptor": user.id
        case "device": descriptors[user.id] ?? user.id
        default: nil
        }
      })
  }

  private func whyUnknown(_ file: ImageScan.File) -> String? {
    if let reason = scan.unsettled[file.location.parent] { return reason }
    if scan.begun.contains(file.location) { return "it is being made: a journal lies beside it" }
    return scan.problems.first.map { "not everything could be looked at: \($0)" }
  }

  /// Each once: that it is a device's is said by its record, its claim and its descriptor.
  private static func merged(_ users: [ImageInfo.User]) -> [ImageInfo.User] {
    var merged: [ImageInfo.User] = []
    for user in users {
      guard
        let index = merged.firstIndex(where: {
          $0.kind == user.kind && $0.id == user.id
            && ($0.snapshot == nil || user.snapshot == nil || $0.snapshot == user.snapshot)
        })
      else {
        merged.append(user)
        continue
      }
      merged[index].snapshot = merged[index].snapshot ?? user.snapshot
      merged[index].isTop = merged[index].isTop || user.isTop
    }
    return merged.sorted {
      ($0.kind, $0.id, $0.snapshot ?? "") < ($1.kind, $1.id, $1.snapshot ?? "")
    }
  }
}

extension JobValue {
  /// All texts in it.
  fileprivate var texts: [String] {
    switch self {
    case .text(let text): [text]
    case .list(let items): items.flatMap(\.texts)
    case .object(let members): members.values.flatMap(\.texts)
    case .number, .flag: []
    }
  }
}
