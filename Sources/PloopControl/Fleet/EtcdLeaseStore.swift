internal import FoundationEssentials
internal import PloopEtcd
internal import PloopIO

/// Leases, owners and what is known of devices as keys of etcd (docs/fleet.md, "Keys").
///
/// The epoch of an owner is the revision at which its key was written, which is never written for anything else.
struct EtcdLeaseStore: LeaseStore {
  private static let prefix = "/ploopd/v1/"
  private static let nodes = "\(prefix)nodes/"
  private static let owners = "\(prefix)owners/"
  private static let devices = "\(prefix)devices/"
  private static let jobs = "\(prefix)jobs/"

  private let client: EtcdClient

  init(_ client: EtcdClient) { self.client = client }

  // MARK: Leases

  func begin(seconds: Int) throws(LeaseError) -> UInt64 {
    try asking { () throws(EtcdError) in try client.grantLease(seconds: seconds).id }
  }

  func renew(_ lease: UInt64) throws(LeaseError) -> Bool {
    try asking { () throws(EtcdError) in try client.keepLease(lease) }
  }

  func end(_ lease: UInt64) throws(LeaseError) {
    try asking { () throws(EtcdError) in try client.revokeLease(lease) }
  }

  func register(_ node: FleetNode, under lease: UInt64) throws(LeaseError) -> Bool {
    let key = Self.nodes + node.name
    let bytes = try Self.bytes(of: node)
    return try asking { () throws(EtcdError) in
      // What a call has done whose answer was lost is there.
      if let known = try client.value(of: key) {
        guard known.lease == lease else { return false }
        return try client.transact(
          if: [.written(key, at: known.writtenAt)], [.put(key, bytes, lease: lease)]
        ).isDone
      }
      return try client.transact(if: [.missing(key)], [.put(key, bytes, lease: lease)]).isDone
    }
  }

  // MARK: Owners

  func acquire(
    _ device: String, for node: String, under lease: UInt64
  ) throws(LeaseError) -> UInt64? {
    let key = Self.owners + device
    let bytes = try Self.bytes(of: Owner(node: node))
    return try asking { () throws(EtcdError) in
      let result = try client.transact(if: [.missing(key)], [.put(key, bytes, lease: lease)])
      if result.isDone { return result.revision }
      // An earlier call whose answer was lost may have made it ours.
      guard let known = try client.value(of: key), known.lease == lease else { return nil }
      return known.writtenAt
    }
  }

  func hand(
    _ device: String, _ ownership: Ownership, to node: String, under lease: UInt64,
    leaving entry: FleetEntry
  ) throws(LeaseError) -> UInt64? {
    let key = Self.owners + device
    let bytes = try Self.bytes(of: Owner(node: node))
    let entryBytes = try Self.bytes(of: entry)
    return try asking { () throws(EtcdError) in
      let result = try client.transact(
        if: [.written(key, at: ownership.epoch), .exists(Self.nodes + node)],
        [
          .put(key, bytes, lease: lease), .put(Self.devices + device, entryBytes, lease: 0),
        ])
      if result.isDone { return result.revision }
      guard let known = try client.value(of: key), known.lease == lease, lease != ownership.lease
      else { return nil }
      return known.writtenAt
    }
  }

  func release(
    _ device: String, _ ownership: Ownership, leaving entry: FleetEntry?
  ) throws(LeaseError) -> UInt64? {
    let key = Self.owners + device
    var steps: [EtcdStep] = [.delete(key)]
    if let entry {
      steps.append(.put(Self.devices + device, try Self.bytes(of: entry), lease: 0))
    } else {
      steps += [.delete(Self.devices + device), .deletePrefix("\(Self.jobs)\(device)/")]
    }
    return try asking { [steps] () throws(EtcdError) in
      let result = try client.transact(if: [.written(key, at: ownership.epoch)], steps)
      if result.isDone { return result.revision }
      // Done by a call whose answer was lost; or the lease has ended, and somebody else may have it.
      guard try client.value(of: key) == nil, let entry,
        let value = try client.value(of: Self.devices + device), try Self.value(of: value) == entry
      else { return nil }
      return result.revision
    }
  }

  func owner(of device: String) throws(LeaseError) -> Ownership? {
    try asking { () throws(EtcdError) in
      guard let value = try client.value(of: Self.owners + device) else { return nil }
      return try Self.ownership(value)
    }
  }

  // MARK: Devices

  func keep(_ entry: FleetEntry, of device: String) throws(LeaseError) -> Bool {
    let bytes = try Self.bytes(of: entry)
    return try asking { () throws(EtcdError) in
      try client.transact(
        if: [.written(Self.owners + device, at: entry.epoch)],
        [.put(Self.devices + device, bytes, lease: 0)]
      ).isDone
    }
  }

  func entry(of device: String) throws(LeaseError) -> FleetEntry? {
    try asking { () throws(EtcdError) in
      guard let value = try client.value(of: Self.devices + device) else { return nil }
      return try Self.value(of: value)
    }
  }

  // MARK: Jobs

  func keep(
    _ job: JobRecord, of device: String, at epoch: UInt64
  ) throws(LeaseError) -> Bool {
    let bytes = try Self.bytes(of: job)
    return try asking { () throws(EtcdError) in
      try client.transact(
        if: [.written(Self.owners + device, at: epoch)],
        [.put("\(Self.jobs)\(device)/\(job.id)", bytes, lease: 0)]
      ).isDone
    }
  }

  func remove(job: String, of device: String, at epoch: UInt64) throws(LeaseError) -> Bool {
    try asking { () throws(EtcdError) in
      try client.transact(
        if: [.written(Self.owners + device, at: epoch)],
        [.delete("\(Self.jobs)\(device)/\(job)")]
      ).isDone
    }
  }

  func jobs(of device: String) throws(LeaseError) -> [JobRecord] {
    try asking { () throws(EtcdError) in
      try client.values(under: "\(Self.jobs)\(device)/").values.compactMap {
        try? Self.value(of: $0)
      }
    }
  }

  // MARK: Everything

  func list() throws(LeaseError) -> FleetView {
    try asking { () throws(EtcdError) in
      let (values, revision) = try client.values(under: Self.prefix)
      var view = FleetView(revision: revision)
      view.apply(values.compactMap { Self.change($0.key, $0) }, at: revision)
      return view
    }
  }

  func watch(
    behind revision: UInt64, seconds: Int, _ receive: ([FleetChange], UInt64) -> Bool
  ) throws(LeaseError) {
    try asking { () throws(EtcdError) in
      try client.watch(under: Self.prefix, from: revision + 1, seconds: seconds) {
        receive($0.compactMap { Self.change($0.key, $0.value) }, $1)
      }
    }
  }

  /// - Parameter value: nil for a key that is gone.
  private static func change(_ key: String, _ value: EtcdValue?) -> FleetChange? {
    func name(behind prefix: String) -> String? {
      key.hasPrefix(prefix) ? String(key.dropFirst(prefix.count)) : nil
    }
    if let name = name(behind: nodes) {
      let node: FleetNode? = value.flatMap { try? Self.value(of: $0) }
      return .node(name, node, lease: value?.lease ?? 0)
    }
    if let device = name(behind: owners) {
      return .owner(device: device, value.flatMap { try? Self.ownership($0) })
    }
    if let device = name(behind: devices) {
      let entry: FleetEntry? = value.flatMap { try? Self.value(of: $0) }
      return .device(device, entry.map(FleetDevice.init))
    }
    return nil
  }

  // MARK: Pieces

  /// The value of an owner's key.
  private struct Owner: Codable {
    var node: String
  }

  private static func ownership(_ value: EtcdValue) throws(EtcdError) -> Ownership {
    let owner: Owner = try Self.value(of: value)
    return Ownership(node: owner.node, lease: value.lease, epoch: value.writtenAt)
  }

  private static func bytes(of value: some Encodable) throws(LeaseError) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    do { return Array(try encoder.encode(value)) } catch {
      throw LeaseError(kind: .refused, detail: "what is to be written is no JSON: \(error)")
    }
  }

  private static func value<Value: Decodable>(of value: EtcdValue) throws(EtcdError) -> Value {
    do { return try JSONDecoder().decode(Value.self, from: Data(value.bytes)) } catch {
      throw EtcdError(.refused, "etcd: \(value.key) is not what this version writes: \(error)")
    }
  }

  private func asking<Result>(
    _ body: () throws(EtcdError) -> Result
  ) throws(LeaseError) -> Result {
    do throws(EtcdError) { return try body() } catch {
      let kind: LeaseError.Kind =
        switch error.kind {
        case .unreachable: .unreachable
        case .refused: .refused
        case .compacted: .compacted
        }
      throw LeaseError(kind: kind, detail: error.detail)
    }
  }
}
