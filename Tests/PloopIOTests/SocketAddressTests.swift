import PloopIO
import Testing

@Suite("An address of the local link")
struct SocketAddressTests {
  private func address(_ bytes: [UInt8]) -> [UInt8] {
    bytes + [UInt8](repeating: 1, count: 16 - bytes.count)
  }

  @Test("is told from all others")
  func linkLocal() {
    let mapped = [UInt8](repeating: 0, count: 10) + [0xFF, 0xFF]
    for bytes in [
      [169, 254, 169, 254], mapped + [169, 254, 1, 1], address([0xFE, 0x80]),
      address([0xFE, 0xBF]), address([0xFD, 0, 0x0E, 0xC2]),
    ] {
      #expect(SocketAddress(bytes).isLinkLocal, "\(bytes)")
    }
    for bytes in [
      [127, 0, 0, 1], [169, 253, 1, 1], [10, 169, 254, 1], mapped + [10, 0, 0, 1],
      address([0xFE, 0xC0]), address([0xFD, 0, 0x0E, 0xC3]),
      [UInt8](repeating: 0, count: 12) + [169, 254, 1, 1],
    ] {
      #expect(!SocketAddress(bytes).isLinkLocal, "\(bytes)")
    }
  }

  @Test("is found where a socket has a peer")
  func peers() {
    #expect(SocketAddress(peerOf: -1) == nil)
  }
}
