import Testing

@testable import PloopControl

@Suite("Which node has which disk")
struct FleetPlanTests {
  static func node(
    _ name: String, capacity: Int = 100, labels: [String: String] = [:]
  ) -> FleetNode {
    FleetNode(
      name: name, endpoint: "http://\(name)", version: "0", labels: labels, capacity: capacity,
      since: 0)
  }

  static func record(
    _ id: String, labels: [String: String] = [:], autostart: Bool = true
  ) -> DeviceRecord {
    DeviceRecord(
      id: id, uuid: "", revision: 1, deltas: [], readonly: false, suspended: false,
      autostart: autostart, labels: labels, sizeBytes: 0, clusterBytes: 0, version: 2,
      isAttached: true, createdAt: 0, updatedAt: 0)
  }

  static func device(
    _ id: String, labels: [String: String] = [:], autostart: Bool = true,
    _ state: FleetEntry.State = .serving
  ) -> FleetDevice {
    FleetDevice(
      FleetEntry(
        record: record(id, labels: labels, autostart: autostart), state: state, node: "a",
        epoch: 1))
  }

  static func view(_ nodes: [FleetNode], _ devices: [String], at revision: UInt64 = 10) -> FleetView
  {
    var view = FleetView()
    view.apply(
      nodes.enumerated().map { .node($1.name, $1, lease: UInt64($0 + 1)) }
        + devices.map { .device($0, device($0)) }, at: revision)
    return view
  }

  static func actions(
    of name: String, _ view: FleetView, claims: [String: Ownership] = [:], busy: Set<String> = [],
    settledAt: [String: UInt64] = [:], lease: UInt64?? = nil, now: UInt64 = 0,
    since: [String: UInt64] = [:]
  ) throws -> [FleetPlan.Action] {
    let node = try #require(view.nodes[name])
    var vacancies = since.mapValues { FleetPlan.Vacancy(since: $0) }
    let plan = FleetPlan(
      node: node, lease: lease ?? view.leases[name], view: view, claims: claims, busy: busy,
      settledAt: settledAt, now: now)
    return plan.actions(&vacancies)
  }

  // MARK: Placement

  /// The nodes that may have a device, in their turns.
  private static func ranking(
    of device: String, wanting wanted: [String: String], among nodes: [FleetNode],
    loads: [String: Int]
  ) -> [String] {
    let turns = nodes.compactMap { node in
      Placement.turn(of: node, for: device, wanting: wanted, among: nodes, loads: loads)
        .map { (node.name, turn: $0) }
    }.sorted { $0.turn < $1.turn }
    #expect(turns.map(\.turn) == Array(turns.indices), "each has a turn of its own")
    return turns.map(\.0)
  }

  @Test("devices are spread by capacity, and those of a node that goes over all others")
  func shares() {
    let nodes = [
      Self.node("a", capacity: 100), Self.node("b", capacity: 200), Self.node("c", capacity: 100),
    ]
    func owners(_ nodes: [FleetNode]) -> [String: String] {
      Dictionary(
        uniqueKeysWithValues: (0..<4_000).map { number in
          let name = "vm\(number)"
          return (name, Self.ranking(of: name, wanting: [:], among: nodes, loads: [:])[0])
        })
    }
    let before = owners(nodes)
    let counts = Dictionary(grouping: before.values) { $0 }.mapValues(\.count)
    #expect((850...1_150).contains(counts["a"] ?? 0), "\(counts)")
    #expect((1_850...2_150).contains(counts["b"] ?? 0), "\(counts)")
    let after = owners(nodes.filter { $0.name != "b" })
    // Nobody else's device moves.
    #expect(before.allSatisfy { $0.value == "b" || after[$0.key] == $0.value })
    let moved = before.filter { $0.value == "b" }.keys.filter { after[$0] == "a" }.count
    #expect((850...1_150).contains(moved), "\(moved)")
  }

  @Test("labels that a device wants keep it from other nodes; a full node comes last")
  func labels() {
    let nodes = [
      Self.node("a", labels: ["zone": "x"]), Self.node("b"), Self.node("c", labels: ["zone": "x"]),
    ]
    let wanted = Placement.wanted(by: ["node.zone": "x", "tenant": "t"])
    #expect(wanted == ["zone": "x"])
    let ranking = Self.ranking(of: "vm1", wanting: wanted, among: nodes, loads: [:])
    #expect(Set(ranking) == ["a", "c"])
    let full = Self.ranking(of: "vm1", wanting: wanted, among: nodes, loads: [ranking[0]: 100])
    #expect(full == ranking.reversed())
    #expect(
      Self.ranking(of: "x", wanting: [:], among: [Self.node("z", capacity: 0)], loads: [:]).isEmpty)
  }

  // MARK: Plans

  @Test("exactly one node takes a device at once that nobody has; each other one in its turn")
  func turns() throws {
    let nodes = ["a", "b", "c"].map { Self.node($0) }
    let view = Self.view(nodes, ["vm1"])
    func takers(after seconds: UInt64) throws -> Set<String> {
      Set(
        try ["a", "b", "c"].filter {
          try !Self.actions(of: $0, view, now: seconds * 1_000_000_000, since: ["vm1": 0]).isEmpty
        })
    }
    #expect(try takers(after: 0).count == 1)
    #expect(try takers(after: 2).count == 1)
    #expect(try takers(after: 3).count == 2)
    #expect(try takers(after: 6) == ["a", "b", "c"])
  }

  @Test("a node that goes gives its turns away; of many devices some are weighed in each look")
  func vacancies() throws {
    var nodes = (0..<50).map { Self.node("n\($0)") }
    let names = (0..<5_000).map { "vm\($0)" }
    var view = Self.view(nodes, names)
    var vacancies: [String: FleetPlan.Vacancy] = [:]
    func look(at seconds: UInt64) -> [FleetPlan.Action] {
      FleetPlan(
        node: nodes[0], lease: 1, view: view, claims: [:], busy: [],
        now: seconds * 1_000_000_000
      ).actions(&vacancies)
    }
    _ = look(at: 0)
    let weighed = vacancies.values.count { $0.nodesRevision == view.nodesRevision }
    #expect(weighed == FleetPlan.weighingLimit / nodes.count)
    #expect(vacancies.count == names.count)
    for second in 1..<4 { _ = look(at: UInt64(second)) }
    #expect(vacancies.values.allSatisfy { $0.nodesRevision == view.nodesRevision && $0.since == 0 })
    let before = vacancies
    nodes.removeAll { $0.name == "n1" }
    view.apply([.node("n1", nil, lease: 0)], at: 11)
    for second in 4..<8 { _ = look(at: UInt64(second)) }
    let earlier = names.count { name in
      guard let old = before[name]?.turn, let new = vacancies[name]?.turn else { return false }
      #expect(old == new || old == new + 1, "\(name): \(old), \(new)")
      return new < old
    }
    #expect((2_000...3_000).contains(earlier), "\(earlier)")
    #expect(look(at: 8).count == FleetPlan.actionLimit)
    // What somebody has by now is forgotten.
    view.apply([.owner(device: "vm1", Ownership(node: "n2", lease: 3, epoch: 12))], at: 12)
    _ = look(at: 9)
    #expect(vacancies["vm1"] == nil && vacancies.count == names.count - 1)
  }

  @Test("what is not to come back by itself, is somebody's, or is being done, is left alone")
  func nothing() throws {
    var view = Self.view([Self.node("a")], ["vm1"])
    #expect(try Self.actions(of: "a", view) == [.acquire("vm1")])
    #expect(try Self.actions(of: "a", view, busy: ["vm1"]) == [])
    #expect(try Self.actions(of: "a", view, settledAt: ["vm1": 11]) == [], "the view is old")
    #expect(try Self.actions(of: "a", view, lease: .some(nil)) == [], "no lease")
    view.apply([.device("vm1", Self.device("vm1", autostart: false, .closed))], at: 11)
    #expect(try Self.actions(of: "a", view) == [])
    // Its owner has gone without a word: it was being served.
    view.apply([.device("vm1", Self.device("vm1", autostart: false))], at: 12)
    #expect(try Self.actions(of: "a", view) == [.acquire("vm1")])
    view = Self.view([Self.node("a", capacity: 0)], ["vm1"])
    #expect(try Self.actions(of: "a", view) == [], "no room")
  }

  @Test("a device that was handed to this node is taken; one that it had is given up")
  func handed() throws {
    var view = Self.view([Self.node("a"), Self.node("b")], ["vm1"])
    view.apply([.owner(device: "vm1", Ownership(node: "a", lease: 1, epoch: 12))], at: 12)
    let mine = Ownership(node: "a", lease: 1, epoch: 12)
    #expect(try Self.actions(of: "a", view) == [.take("vm1", mine)])
    #expect(try Self.actions(of: "b", view) == [])
    #expect(try Self.actions(of: "a", view, claims: ["vm1": mine]) == [])
    // Somebody else has it since.
    view.apply([.owner(device: "vm1", Ownership(node: "b", lease: 2, epoch: 15))], at: 15)
    #expect(try Self.actions(of: "a", view, claims: ["vm1": mine]) == [.abandon("vm1")])
    // Of what is newer than the view nothing is known.
    let newer = Ownership(node: "a", lease: 1, epoch: 20)
    #expect(try Self.actions(of: "a", view, claims: ["vm1": newer]) == [])
  }

  @Test("what was claimed under a lease that is lost is given up, whatever the view says")
  func lost() throws {
    var view = Self.view([Self.node("a")], ["vm1"])
    let mine = Ownership(node: "a", lease: 1, epoch: 5)
    view.apply([.owner(device: "vm1", mine)], at: 12)
    #expect(try Self.actions(of: "a", view, claims: ["vm1": mine]) == [])
    #expect(try Self.actions(of: "a", view, claims: ["vm1": mine], lease: 9) == [.abandon("vm1")])
    #expect(
      try Self.actions(of: "a", view, claims: ["vm1": mine], lease: .some(nil)) == [.abandon("vm1")]
    )
  }

  @Test("so many devices come at a time, and no more than there is room for")
  func limits() throws {
    let many = (0..<100).map { "vm\($0)" }
    #expect(
      try Self.actions(of: "a", Self.view([Self.node("a")], many)).count == FleetPlan.actionLimit)
    let small = Self.view([Self.node("a", capacity: 3)], many)
    #expect(try Self.actions(of: "a", small).count == 3)
  }

  @Test("names of copies are those of the first file and the epoch")
  func names() {
    for (name, plain) in [
      ("root.hds", "root.hds"), ("root.hds.e12", "root.hds"), ("a.e", "a.e"), ("a.e1x", "a.e1x"),
      ("DiskDescriptor.xml.e7", "DiskDescriptor.xml"), ("e5", "e5"),
    ] { #expect(Service.plain(name) == plain) }
  }
}
