internal import PloopNBD

/// The haggling of an NBD client. Input: what TLS is to the server; what the client says.
struct HandshakeTarget {
  private static let greeting = Array("NBDMAGICIHAVEOPT".utf8) + [0, 3]
  private let servers: [FuzzServer]

  init() throws { servers = try TLSMode.allCases.map { try FuzzServer($0) } }

  func run(_ input: [UInt8]) throws {
    var head = InputHead(input)
    let server = servers[Int(head.byte()) % servers.count]
    let heard = try server.converse(head.body)
    try promise(heard.starts(with: Self.greeting), "no greeting, but \(heard.prefix(18))")
    try server.check()
  }
}
