import PloopNBD
import TestSupport
import Testing

/// What only a client that handles TLS by hand asks for: `openssl s_client` behind a relay that says STARTTLS for it.
@Suite("TLS by hand")
struct TLSByHandTests {
  /// Runs a program that has `client(options)`, which says `send`, `command` and `until`.
  private func run(_ server: TLSFixture, _ program: String) throws {
    try server.python(
      """
      import subprocess, threading
      class Client:
          def __init__(self, *options):
              door = socket.socket(); door.bind(('127.0.0.1', 0)); door.listen(1)
              def relay():
                  outside, _ = door.accept(); inside = greeted()
                  assert ask(inside, 5) == 1
                  def pump(a, b):
                      try:
                          while more := a.recv(65536): b.sendall(more)
                      except OSError: pass
                      for s in (a, b):
                          try: s.shutdown(socket.SHUT_RDWR)
                          except OSError: pass
                  threading.Thread(target=pump, args=(outside, inside), daemon=True).start()
                  pump(inside, outside)
              threading.Thread(target=relay, daemon=True).start()
              self.p = subprocess.Popen(
                  ['openssl', 's_client', '-connect', f'127.0.0.1:{door.getsockname()[1]}',
                   '-CAfile', f'{tls}/ours.pem', *options],
                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
              self.said = b''
          def send(self, data): self.p.stdin.write(data)
          def until(self, *wanted):
              'What it says up to one of these, or its end (None).'
              while True:
                  for w in wanted:
                      if w in self.said:
                          self.said = self.said[self.said.index(w) + len(w):]
                          return w
                  more = self.p.stdout.read(65536)
                  if not more: return None
                  self.said += more
      ANSWER, REPLY = bytes.fromhex('0003e889045565a9'), bytes.fromhex('67446698')
      GO = option(7, struct.pack('>I', 4) + b'disk\\0\\0')
      ACK = struct.pack('>III', 7, 1, 0)
      \(program)
      """)
  }

  @Test("new keys are taken, and given where they are asked for")
  func newKeys() throws {
    try run(
      TLSFixture(.require),
      """
      c = Client('-tls1_3')
      c.send(GO)
      assert c.until(ANSWER + ACK), c.said
      # GnuTLS takes eight of them in a second at most.
      for number in range(3):
          for command in (b'K\\n', b'k\\n'):
              c.send(command)
              assert c.until(b'KEYUPDATE'), c.said
              c.send(request(0, 4096 * number, 512, number))
              assert c.until(REPLY), c.said
      c.p.kill()
      """)
  }

  @Test("nobody renegotiates")
  func renegotiation() throws {
    let server = try TLSFixture(.require)
    try run(
      server,
      """
      c = Client('-tls1_2')
      c.send(GO)
      assert c.until(ANSWER + ACK), c.said
      c.send(b'R\\n')
      assert c.until(b'RENEGOTIATING'), c.said
      c.send(request(0, 0, 512, 1))
      assert c.until(REPLY) is None, c.said
      """)
    #expect(becomes { server.live.server.connectionCount == 0 })
  }

  @Test("keys that outlive a connection's are refused: static RSA, and a pre-shared key alone")
  func forwardSecrecy() throws {
    let server = try TLSFixture(
      .require, keys: "alice:\(String(repeating: "5a", count: 32))\n", usesRSA: true)
    try run(
      server,
      """
      psk = ['-psk_identity', 'alice', '-psk', '5a' * 32]
      for options, is_served in [
          (['-tls1_2', '-cipher', 'ECDHE-RSA-AES128-GCM-SHA256'], True),
          (['-tls1_2', '-cipher', 'AES128-GCM-SHA256'], False),
          (['-tls1_2', '-cipher', 'RSA@SECLEVEL=0'], False),
          (['-tls1_2', '-cipher', 'ECDHE-PSK-CHACHA20-POLY1305'] + psk, True),
          (['-tls1_2', '-cipher', 'PSK-AES128-GCM-SHA256'] + psk, False),
          (['-tls1_1', '-cipher', 'ALL@SECLEVEL=0'], False),
      ]:
          c = Client(*options)
          c.send(GO)
          assert bool(c.until(ANSWER + ACK)) == is_served, (options, c.said[-2000:])
          c.p.kill()
      """)
  }
}
