internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Whether a snapshot stays, and why.
struct SnapshotVerdict: Sendable {
  let guid: GUID
  let name: String?
  /// Seconds since 1970; nil for one that was made by another tool.
  let createdAt: Double?
  /// Rules that keep it, or what else keeps it; empty for one that goes.
  let reasons: [String]

  var isRemoved: Bool { reasons.isEmpty }

  var value: JobValue {
    var members: [String: JobValue] = [
      "uuid": .text(guid.description), "keep": .flag(!isRemoved),
      "rules": .list(reasons.map(JobValue.text)),
    ]
    members["name"] = name.map(JobValue.text)
    return .object(members)
  }

  var words: String {
    "\(guid)\(name.map { " (\($0))" } ?? "") \(isRemoved ? "goes" : "stays: \(reasons.joined(separator: ", "))")"
  }
}

/// The same of a point of a backup.
struct PointVerdict: Sendable {
  let id: String
  let reasons: [String]

  var isRemoved: Bool { reasons.isEmpty }

  var value: JobValue {
    .object([
      "id": .text(id), "keep": .flag(!isRemoved), "rules": .list(reasons.map(JobValue.text)),
    ])
  }

  var words: String {
    "\(id) \(isRemoved ? "goes" : "stays: \(reasons.joined(separator: ", "))")"
  }
}

extension Service {
  /// What a retention says of a disk's snapshots, those that build on others first: so they are removed, and
  /// what is given up is copied once.
  func verdicts(
    on controller: DeviceController, _ retention: Retention
  ) throws(ServiceError) -> [SnapshotVerdict] {
    guard let record = controller.now.record, let path = record.descriptor else { return [] }
    _ = try writable(controller)
    let location = try roots.locate(path, pointer: "")
    let folder = try roots.folder(of: location, pointer: "")
    let descriptor = try read(location, in: folder)
    let notes = notes(beside: DescriptorFile(in: folder, name: location.name), of: record.id)
    let snapshots = descriptor.shots.filter { $0.guid != descriptor.topGUID && $0.mark == nil }
    let dated = snapshots.filter { notes[$0.guid].createdAt != nil }
    let rules = retention.reasons(for: dated.map { notes[$0.guid].createdAt ?? 0 })
    var reasons = Dictionary(
      zip(dated.map(\.guid), rules.map { $0.map(\.rawValue) }),
      uniquingKeysWith: { first, _ in first })
    // A branch that goes leaves fewer states that build on what is below it.
    var children = Dictionary(grouping: descriptor.shots, by: \.parent).mapValues(\.count)
    var verdicts: [SnapshotVerdict] = []
    for shot in deepestFirst(snapshots, descriptor) {
      var why = reasons.removeValue(forKey: shot.guid) ?? ["unknown_time"]
      if why.isEmpty {
        let count = children[shot.guid] ?? 0
        if let refusal = whyItStays(shot.guid, of: record.id, descriptor, at: location, notes) {
          why = [refusal.code.rawValue]
        } else if count > 1 {
          why = [ServiceError.Code.snapshotHasBranches.rawValue]
        } else if count == 0 {
          children[shot.parent, default: 1] -= 1
        }
      }
      let note = notes[shot.guid]
      verdicts.append(
        SnapshotVerdict(guid: shot.guid, name: note.name, createdAt: note.createdAt, reasons: why))
    }
    return verdicts
  }

  private func deepestFirst(
    _ shots: [Descriptor.Shot], _ descriptor: Descriptor
  ) -> [Descriptor.Shot] {
    let depths = shots.map { (try? descriptor.chain(to: $0.guid).count) ?? 0 }
    return shots.indices.sorted { (depths[$0], $0) > (depths[$1], $1) }.map { shots[$0] }
  }

  /// What a retention says of the points on a target, each device's by itself, the newest first: so they are
  /// removed, and none goes that another one needs.
  func verdicts(
    on target: String, of device: String?, _ retention: Retention
  ) throws(ServiceError) -> [PointVerdict] {
    let points = try backups(on: target, of: device)
    var verdicts: [PointVerdict] = []
    for (_, own) in Dictionary(grouping: points, by: \.device).sorted(by: { $0.key < $1.key }) {
      let whole = own.filter(\.isWhole)
      let rules = retention.reasons(for: whole.map { $0.pointInTime ?? 0 })
      var reasons = Dictionary(
        zip(whole.map(\.id), rules.map { $0.map(\.rawValue) }),
        uniquingKeysWith: { first, _ in first })
      var needed: Set<String> = []
      for point in own.reversed() {
        var why = reasons.removeValue(forKey: point.id) ?? [point.state.rawValue]
        if why.isEmpty, needed.contains(point.id) { why = ["needed"] }
        if why.isEmpty, jobs.state.withLock({ $0.jobs[point.id] }) != nil { why = ["job"] }
        if !why.isEmpty, let parent = point.parent { needed.insert(parent) }
        verdicts.append(PointVerdict(id: point.id, reasons: why))
      }
    }
    return verdicts
  }
}
