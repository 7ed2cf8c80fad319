import PloopIO
import PloopNBD
import Testing

@testable import PloopControl

@Suite("Who may use an export")
struct ExportAccessTests {
  private func refusal(_ access: ExportAccess, _ visitor: Visitor) -> DoorRefusal.Kind? {
    do throws(DoorRefusal) { try access.require(visitor, of: "vm") } catch { return error.kind }
    return nil
  }

  private func tcp(_ host: String, _ names: [String]? = nil) -> Visitor {
    Visitor(
      peer: .tcp(host: host, port: "1"), isSecure: names != nil, names: names ?? [])
  }

  private let local = Visitor(peer: .unix(process: 1, user: 0, groups: [0]))

  @Test("all that is said has to be the case; TLS is asked for first")
  func rules() {
    #expect(refusal(ExportAccess(), local) == nil)
    #expect(refusal(ExportAccess(tls: true), local) == .needsTLS)
    #expect(refusal(ExportAccess(tls: true), tcp("::1", [])) == nil)
    let named = ExportAccess(names: ["dns:vm1.example", "psk:alice"])
    #expect(refusal(named, tcp("10.0.0.1")) == .needsTLS)
    #expect(refusal(named, tcp("10.0.0.1", [])) == .policy)
    #expect(refusal(named, tcp("10.0.0.1", ["dns:vm2.example", "dns:VM1.example"])) == .policy)
    // Who may choose a name of one kind is not taken for who has another kind's.
    #expect(
      refusal(named, tcp("10.0.0.1", ["uri:psk:alice", "dns:alice", "psk:vm1.example"])) == .policy)
    #expect(refusal(named, tcp("10.0.0.1", ["dns:vm2.example", "psk:alice"])) == nil)
    // Nothing in a name stands for others, on either side.
    #expect(
      refusal(
        ExportAccess(names: ["uri:urn:*", "dns:*.example"]),
        tcp("::1", ["uri:urn:vm1", "dns:vm1.example"]))
        == .policy)
    #expect(
      refusal(
        ExportAccess(names: ["uri:urn:vm1", "dns:vm1.example"]),
        tcp("::1", ["uri:urn:*", "dns:*.example"]))
        == .policy)
    let placed = ExportAccess(addresses: ["10.0.0.0/8", "2001:db8::1"])
    for host in ["10.9.9.9", "::ffff:10.0.0.1", "2001:db8::1"] {
      #expect(refusal(placed, tcp(host)) == nil, "\(host)")
    }
    for visitor in [tcp("11.0.0.1"), tcp("2001:db8::2"), local, Visitor(peer: .unknown)] {
      #expect(refusal(placed, visitor) == .policy)
    }
    let both = ExportAccess(names: ["psk:alice"], addresses: ["10.0.0.1"])
    #expect(refusal(both, tcp("10.0.0.1", ["psk:alice"])) == nil)
    #expect(refusal(both, tcp("10.0.0.2", ["psk:alice"])) == .policy)
    #expect(refusal(both, tcp("10.0.0.1", ["psk:bob"])) == .policy)
  }

  @Test("a name is its bytes: what only looks the same is another one")
  func bytes() {
    let composed = ExportAccess(names: ["caf\u{E9}"])
    #expect(refusal(composed, tcp("::1", ["cafe\u{301}"])) == .policy)
    #expect(refusal(composed, tcp("::1", ["caf\u{E9}"])) == nil)
  }

  @Test("rules that could let nobody in are refused")
  func validation() {
    func code(_ access: ExportAccess) -> ServiceError.Code? {
      do throws(ServiceError) { try access.validate() } catch { return error.code }
      return nil
    }
    #expect(code(ExportAccess(names: ["cn:a", "psk:"], addresses: ["10.0.0.0/8", "::1"])) == nil)
    for access in [
      ExportAccess(names: []), ExportAccess(addresses: []), ExportAccess(names: [""]),
      ExportAccess(names: ["a\0b"]), ExportAccess(names: Array(repeating: "a", count: 65)),
      ExportAccess(names: [String(repeating: "a", count: 1025)]),
    ] { #expect(code(access) == .invalidValue, "\(access)") }
    for name in ["alice", "PSK:alice", "ip:10.0.0.1"] {
      #expect(code(ExportAccess(names: [name])) == .valueImpossible, "\(name)")
    }
    for address in ["", "here", "10.0.0.1/8", "10.0.0.0/33"] {
      #expect(code(ExportAccess(addresses: [address])) == .valueImpossible, "\(address)")
    }
  }
}
