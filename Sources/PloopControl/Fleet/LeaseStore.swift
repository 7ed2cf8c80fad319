/// A host of the fleet, as the others see it.
package struct FleetNode: Codable, Sendable, Equatable {
  package var name: String
  /// Where its API is: what others are sent to.
  package var endpoint: String
  package var version: String
  package var labels: [String: String]
  /// How many devices it takes.
  package var capacity: Int
  /// Seconds since 1970.
  package var since: Double

  package init(
    name: String, endpoint: String, version: String, labels: [String: String], capacity: Int,
    since: Double
  ) {
    self.name = name
    self.endpoint = endpoint
    self.version = version
    self.labels = labels
    self.capacity = capacity
    self.since = since
  }
}

/// Who has a device. Each change of owner has another epoch, greater than all before.
struct Ownership: Sendable, Equatable {
  var node: String
  var lease: UInt64
  var epoch: UInt64
}

/// What the fleet knows of a device, whoever has it: enough for another node to serve it.
struct FleetEntry: Codable, Sendable, Equatable {
  enum State: String, Codable, Sendable {
    /// Its owner has it, and is about to open its image.
    case taking
    case serving
    /// Its image was closed by its last owner.
    case closed
    /// It could not be served; its owner keeps it until somebody decides.
    case failed
  }

  var record: DeviceRecord
  var state: State
  /// Who has written this, and as which owner.
  var node: String
  var epoch: UInt64
  /// Why it failed.
  var reason: String?
}

/// The part of an entry by which it is decided who is to have the device.
struct FleetDevice: Sendable, Equatable {
  var state: FleetEntry.State
  /// Whether somebody is to have it: also what was not to come back by itself, if its owner has gone without a word.
  var isWanted: Bool
  /// What a node's labels have to be.
  var wanted: [String: String]
  var exports: [String]
  var epoch: UInt64
  var reason: String?

  init(_ entry: FleetEntry) {
    state = entry.state
    isWanted = entry.record.autostart || entry.state != .closed
    wanted = Placement.wanted(by: entry.record.labels)
    exports = entry.record.exports.map(\.name)
    epoch = entry.epoch
    reason = entry.reason
  }
}

/// A change of what the fleet knows; a nil value is one that is gone.
enum FleetChange: Sendable {
  case node(String, FleetNode?, lease: UInt64)
  case owner(device: String, Ownership?)
  case device(String, FleetDevice?)
}

struct LeaseError: Error, Sendable {
  enum Kind: Sendable {
    /// Whether it was done, nobody knows.
    case unreachable
    case refused
    /// What was to be watched from there on is not kept any more.
    case compacted
  }

  let kind: Kind
  let detail: String
}

/// Where several nodes agree on who has which device.
///
/// What a node has is under its lease, and gone with it. Whatever an owner says of its device is taken from it for as
/// long as it is the owner, by its epoch.
protocol LeaseStore: Sendable {
  /// - Returns: a lease of `seconds` at least, from now on.
  func begin(seconds: Int) throws(LeaseError) -> UInt64
  /// - Returns: false when it is gone.
  func renew(_ lease: UInt64) throws(LeaseError) -> Bool
  func end(_ lease: UInt64) throws(LeaseError)

  /// - Returns: false while the name is that of another lease.
  func register(_ node: FleetNode, under lease: UInt64) throws(LeaseError) -> Bool

  /// - Returns: the epoch; nil when somebody has it.
  func acquire(
    _ device: String, for node: String, under lease: UInt64
  ) throws(LeaseError) -> UInt64?
  /// Makes another node the owner.
  ///
  /// - Returns: its epoch; nil when the device, or that node, is gone.
  func hand(
    _ device: String, _ ownership: Ownership, to node: String, under lease: UInt64,
    leaving entry: FleetEntry
  ) throws(LeaseError) -> UInt64?
  /// - Parameter entry: what is left of the device; nil when it is forgotten, with its jobs.
  /// - Returns: the revision from which on it is so; nil when it was somebody else's.
  func release(
    _ device: String, _ ownership: Ownership, leaving entry: FleetEntry?
  ) throws(LeaseError) -> UInt64?
  /// Who has a device now, whatever anybody has heard.
  func owner(of device: String) throws(LeaseError) -> Ownership?

  /// - Returns: false when the device is somebody else's by now.
  func keep(_ entry: FleetEntry, of device: String) throws(LeaseError) -> Bool
  func entry(of device: String) throws(LeaseError) -> FleetEntry?

  /// Jobs go with their device, for as long as they are not over.
  ///
  /// - Returns: false when the device is somebody else's by now; so it is with the next one.
  func keep(_ job: JobRecord, of device: String, at epoch: UInt64) throws(LeaseError) -> Bool
  func remove(job: String, of device: String, at epoch: UInt64) throws(LeaseError) -> Bool
  /// Those that can be read.
  func jobs(of device: String) throws(LeaseError) -> [JobRecord]

  func list() throws(LeaseError) -> FleetView
  /// Tells of each change behind a view, for a time; `receive` is given the revision, too.
  func watch(
    behind revision: UInt64, seconds: Int, _ receive: ([FleetChange], UInt64) -> Bool
  ) throws(LeaseError)
}
