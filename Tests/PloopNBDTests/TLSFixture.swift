import PloopNBD
import PloopTLS
import TestSupport

/// A server with TLS over a disk in memory, and Python programs that talk to it in records of their own.
final class TLSFixture {
  let folder: TemporaryFolder
  let disk = MemoryExport(size: 8 << 20)
  let security: Security
  let live: LiveServer

  /// - Parameters:
  ///   - verifiesClients: whether only those get in who have a certificate.
  ///   - revoked: whose certificate the authority has taken back; nil for nobody's.
  ///   - keys: what the file of pre-shared keys says; nil for none.
  ///   - seconds: that a handshake may take.
  ///   - usesRSA: whether the server's key is one by which a client could send his.
  ///   - hasChain: whether the server's certificate has a long chain; `guest-chain` is a client's then.
  init(
    _ mode: TLSMode, verifiesClients: Bool = false, revoking revoked: String? = nil,
    keys: String? = nil, seconds: Int = 120, usesRSA: Bool = false, hasChain: Bool = false
  ) throws {
    folder = try TemporaryFolder()
    let certificates = try Certificates(in: folder.path)
    for authority in ["ours", "other"] { try certificates.authority(authority) }
    try certificates.make(
      "server", by: "ours", "extendedKeyUsage=serverAuth\\nsubjectAltName=DNS:localhost",
      usesRSA: usesRSA)
    let client = "extendedKeyUsage=clientAuth"
    try certificates.make(
      "guest", by: "ours", "\(client)\\nsubjectAltName=DNS:vm1.example,URI:urn:vm1")
    try certificates.make("expired", by: "ours", client, isExpired: true)
    try certificates.make("stranger", by: "other", client)
    if hasChain {
      try certificates.chain("server", by: "ours", "subjectAltName=DNS:localhost")
      try Tool.shell(
        "cd '\(folder.path)' && for end in .pem -key.pem; do cp server$end guest-chain$end; done")
    }
    let own = try certificates.folder("own", ("server", "server"), trusting: "ours")
    if let revoked { try certificates.revoke(revoked, of: "ours", for: "own") }
    var keyPath: String?
    if let keys { keyPath = try folder.secret("keys", keys) }
    let identity = try TLSIdentity(
      CertificateFiles(folder: own), keyPath: keyPath, verifiesClients: verifiesClients)
    security = Security(mode: mode) { identity }
    var limits = Limits()
    limits.handshakeSeconds = seconds
    live = try LiveServer([("disk", disk)], limits: limits, security: security)
  }

  /// Runs a program with the words of the protocol at hand.
  func python(_ program: String) throws { try Tool.python(whole(program)) }

  /// The same beside what the test does.
  func begin(_ program: String) throws -> ChildProcess {
    try ChildProcess(
      ["/usr/bin/python3", "-c", whole(program)], output: "/dev/null",
      errors: "\(folder.path)/errors")
  }

  private func whole(_ program: String) -> String {
    """
    import os, socket, ssl, struct
    tls, path = '\(folder.path)', '\(live.path)'
    REQUIRED, INVALID, POLICY = (1 << 31) + 5, (1 << 31) + 3, (1 << 31) + 2
    def take(s, count):
        got = b''
        while len(got) < count:
            more = s.recv(count - len(got))
            if not more: raise EOFError(got)
            got += more
        return got
    def greeted():
        s = socket.socket(socket.AF_UNIX); s.settimeout(120); s.connect(path)
        assert take(s, 18)[:8] == b'NBDMAGIC'
        s.sendall(struct.pack('>I', 3))
        return s
    def option(code, data=b''): return b'IHAVEOPT' + struct.pack('>II', code, len(data)) + data
    def answer(s):
        magic, code, kind, count = struct.unpack('>QIII', take(s, 20))
        return kind, take(s, count)
    def ask(s, code, data=b''):
        s.sendall(option(code, data))
        return answer(s)[0]
    def context(who=None):
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        c.check_hostname = False
        c.load_verify_locations(f'{tls}/ours.pem')
        if who: c.load_cert_chain(f'{tls}/{who}.pem', f'{tls}/{who}-key.pem')
        return c
    def secure(s, c=None):
        assert ask(s, 5) == 1
        return (c or context()).wrap_socket(s, suppress_ragged_eofs=False)
    def go(s, name=b'disk'):
        s.sendall(option(7, struct.pack('>I', len(name)) + name + b'\\0\\0'))
        while True:
            kind, data = answer(s)
            if kind != 3: return kind
    def request(kind, offset, count, cookie=1, payload=b''):
        return struct.pack('>IHHQQI', 0x25609513, 0, kind, cookie, offset, count) + payload
    def reply(s, count=0):
        magic, error, cookie = struct.unpack('>IIQ', take(s, 16))
        assert magic == 0x67446698 and error == 0, (hex(magic), error)
        return cookie, take(s, count)
    def ends(s):
        try: return s.recv(1) == b''
        except (ssl.SSLError, ConnectionError): return True
    \(program)
    """
  }
}
