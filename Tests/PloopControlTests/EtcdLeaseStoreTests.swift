import Foundation
import PloopEtcd
import PloopIO
import PloopPeer
import TestSupport
import Testing

@testable import PloopControl

@Suite("Leases in etcd")
struct EtcdLeaseStoreTests {
  /// One member on ports of its own; it ends with this object.
  final class LiveEtcd {
    let folder: TemporaryFolder
    let process: ChildProcess
    let url: String
    let client: EtcdClient
    let store: EtcdLeaseStore

    init() throws {
      folder = try TemporaryFolder()
      let ports = try (0..<2).map { _ in try ListeningSocket.tcp(host: "127.0.0.1", port: 0) }
        .map { $0.address }
      url = "http://\(ports[0])"
      process = try ChildProcess(
        [
          "/usr/bin/etcd", "--data-dir", "\(folder.path)/data", "--listen-client-urls", url,
          "--advertise-client-urls", url, "--listen-peer-urls", "http://\(ports[1])",
          "--initial-advertise-peer-urls", "http://\(ports[1])", "--initial-cluster",
          "default=http://\(ports[1])",
        ], output: "\(folder.path)/out", errors: "\(folder.path)/errors")
      let address = try #require(PeerAddress(url))
      client = EtcdClient([address])
      store = EtcdLeaseStore(client)
      let deadline = Deadline.after(seconds: 60)
      while (try? store.list()) == nil {
        guard !deadline.hasPassed, process.isRunning else {
          throw Tool.Failure(
            description: (try? String(contentsOfFile: "\(folder.path)/errors", encoding: .utf8))
              ?? "no etcd")
        }
        poll(nil, 0, 50)
      }
    }
  }

  private static func entry(
    _ id: String, epoch: UInt64, _ state: FleetEntry.State = .serving
  ) -> FleetEntry {
    FleetEntry(record: FleetPlanTests.record(id), state: state, node: "a", epoch: epoch)
  }

  @Test("one node at a time is the owner, by an epoch that only grows")
  func owners() throws {
    let etcd = try LiveEtcd()
    let store = etcd.store
    let (a, b) = (try store.begin(seconds: 60), try store.begin(seconds: 60))
    #expect(try store.register(FleetPlanTests.node("a"), under: a))
    #expect(try store.register(FleetPlanTests.node("a"), under: a), "asked for again")
    #expect(try !store.register(FleetPlanTests.node("a"), under: b), "the name is another's")
    #expect(try store.register(FleetPlanTests.node("b"), under: b))
    let first = try #require(try store.acquire("vm1", for: "a", under: a))
    #expect(try store.acquire("vm1", for: "b", under: b) == nil)
    #expect(try store.acquire("vm1", for: "a", under: a) == first, "the answer was lost")
    let mine = Ownership(node: "a", lease: a, epoch: first)
    #expect(try store.owner(of: "vm1") == mine)
    #expect(try store.keep(Self.entry("vm1", epoch: first), of: "vm1"))
    let second = try #require(
      try store.hand(
        "vm1", mine, to: "b", under: b, leaving: Self.entry("vm1", epoch: first, .closed)))
    #expect(second > first)
    #expect(
      try store.hand("vm1", mine, to: "b", under: b, leaving: Self.entry("vm1", epoch: first))
        == second)
    // The owner before writes nothing any more.
    #expect(try !store.keep(Self.entry("vm1", epoch: first), of: "vm1"))
    #expect(try store.release("vm1", mine, leaving: nil) == nil)
    #expect(try store.entry(of: "vm1")?.state == .closed)
    let theirs = Ownership(node: "b", lease: b, epoch: second)
    #expect(
      try store.hand("vm1", theirs, to: "z", under: 1, leaving: Self.entry("vm1", epoch: second))
        == nil)
    #expect(
      try store.release("vm1", theirs, leaving: Self.entry("vm1", epoch: second, .closed)) != nil)
    #expect(try store.owner(of: "vm1") == nil)
    let third = try #require(try store.acquire("vm1", for: "a", under: a))
    #expect(third > second)
  }

  @Test("what is under a lease is gone with it, and what is known of a device is not")
  func leases() throws {
    let etcd = try LiveEtcd()
    let store = etcd.store
    let lease = try store.begin(seconds: 60)
    #expect(try store.renew(lease))
    _ = try store.register(FleetPlanTests.node("a"), under: lease)
    let epoch = try #require(try store.acquire("vm1", for: "a", under: lease))
    #expect(try store.keep(Self.entry("vm1", epoch: epoch), of: "vm1"))
    try store.end(lease)
    #expect(try !store.renew(lease), "of a lease that is gone the gateway says 200, and no TTL")
    let view = try store.list()
    #expect(view.nodes.isEmpty && view.owners.isEmpty)
    #expect(view.devices["vm1"]?.epoch == epoch)
  }

  @Test("jobs go with their device")
  func jobs() throws {
    let etcd = try LiveEtcd()
    let store = etcd.store
    let lease = try store.begin(seconds: 60)
    let epoch = try #require(try store.acquire("vm1", for: "a", under: lease))
    #expect(try store.keep(Self.entry("vm1", epoch: epoch), of: "vm1"))
    var job = JobRecord(
      id: "01J", type: "compact", device: "vm1", parameters: ["x": .number(1)], phases: ["a"],
      priority: 5, after: [], limits: JobLimits(), labels: [:], createdAt: 1)
    #expect(try store.keep(job, of: "vm1", at: epoch))
    #expect(try store.jobs(of: "vm1") == [job])
    #expect(try !store.keep(job, of: "vm1", at: epoch - 1), "another owner's")
    #expect(try !store.remove(job: "01J", of: "vm1", at: epoch - 1))
    #expect(try store.jobs(of: "vm1") == [job])
    #expect(try store.remove(job: "01J", of: "vm1", at: epoch))
    #expect(try store.jobs(of: "vm1") == [])
    job.id = "01K"
    #expect(try store.keep(job, of: "vm1", at: epoch))
    #expect(
      try store.release("vm1", Ownership(node: "a", lease: lease, epoch: epoch), leaving: nil)
        != nil)
    #expect(try store.jobs(of: "vm1") == [], "a device that is forgotten has no jobs")
    #expect(try store.entry(of: "vm1") == nil)
  }

  @Test("who watches is told of everything behind what he has seen, in order")
  func watching() throws {
    let etcd = try LiveEtcd()
    let store = etcd.store
    let lease = try store.begin(seconds: 60)
    var view = try store.list()
    _ = try store.register(FleetPlanTests.node("a"), under: lease)
    let epoch = try #require(try store.acquire("vm1", for: "a", under: lease))
    #expect(try store.keep(Self.entry("vm1", epoch: epoch), of: "vm1"))
    try store.end(lease)
    var owned = false
    try store.watch(behind: view.revision, seconds: 20) { changes, revision in
      view.apply(changes, at: revision)
      owned =
        owned
        || changes.contains {
          guard case .owner("vm1", let owner?) = $0 else { return false }
          return owner.epoch == epoch
        }
      return view.devices.isEmpty || !view.nodes.isEmpty || !view.owners.isEmpty
    }
    #expect(owned)
    #expect(view.owners.isEmpty && view.nodes.isEmpty && view.devices["vm1"] != nil)
  }

  @Test("who is far behind is told in parts, and misses nothing where one of them is his last")
  func parts() throws {
    let etcd = try LiveEtcd()
    let length = 10_000
    // Many changes at each revision, and more than one part of an answer holds.
    var written: Set<String> = []
    for turn in 0..<8 {
      let keys = (0..<100).map { "/test/\(turn)/\($0)" }
      let value = [UInt8](repeating: 7, count: length)
      #expect(try etcd.client.transact(if: [], keys.map { .put($0, value, lease: 0) }).isDone)
      written.formUnion(keys)
    }
    var (found, from, calls) = (Set<String>(), UInt64(1), 0)
    let deadline = Deadline.after(seconds: 60)
    while found != written, !deadline.hasPassed {
      try etcd.client.watch(under: "/test/", from: from, seconds: 20) { events, revision in
        found.formUnion(events.map(\.key))
        #expect(revision + 1 >= from)
        from = revision + 1
        calls += 1
        return false
      }
    }
    #expect(found == written && calls > 1, "\(found.count) after \(calls) parts")
    // One after the other they end where everything ends.
    var last: UInt64 = 0
    try etcd.client.watch(under: "/test/", from: 1, seconds: 20) { _, revision in
      last = revision
      return last < from - 1
    }
    #expect(last == from - 1)
  }

  @Test("what is too much for one answer is listed as it was at one moment")
  func pages() throws {
    let etcd = try LiveEtcd()
    let names = (0..<2_345).map { "/test/\($0)" }
    for start in stride(from: 0, to: names.count, by: 100) {
      let steps = names[start..<min(start + 100, names.count)].map {
        EtcdStep.put($0, Array($0.utf8), lease: 0)
      }
      #expect(try etcd.client.transact(if: [], steps).isDone)
    }
    let (values, revision) = try etcd.client.values(under: "/test/")
    #expect(values.map(\.key) == names.sorted())
    #expect(values.allSatisfy { Array($0.key.utf8) == $0.bytes })
    #expect(revision == values.map(\.writtenAt).max())
  }

  @Test("what is not kept any more is said to be so")
  func compaction() throws {
    let etcd = try LiveEtcd()
    let lease = try etcd.store.begin(seconds: 60)
    let view = try etcd.store.list()
    for number in 0..<3 { _ = try etcd.store.acquire("vm\(number)", for: "a", under: lease) }
    let now = try etcd.store.list().revision
    _ = try Tool.shell(
      #"curl -sf \#(etcd.url)/v3/kv/compaction -d '{"revision":"\#(now)"}'"#)
    #expect {
      try etcd.store.watch(behind: view.revision, seconds: 5) { _, _ in true }
    } throws: { ($0 as? LeaseError)?.kind == .compacted }
  }

  @Test("a member that does not answer is passed over; of none it is said that nobody answers")
  func members() throws {
    let etcd = try LiveEtcd()
    // Somebody listens, and says nothing.
    let silent = try ListeningSocket.tcp(host: "127.0.0.1", port: 0)
    let addresses = try [silent.address, String(etcd.url.dropFirst(7))].map {
      try #require(PeerAddress("http://\($0)"))
    }
    let store = EtcdLeaseStore(EtcdClient(addresses))
    #expect(try store.begin(seconds: 10) > 0)
    let nobody = EtcdLeaseStore(EtcdClient([addresses[0]]))
    #expect {
      _ = try nobody.list()
    } throws: { ($0 as? LeaseError)?.kind == .unreachable }
  }
}
