import PloopIO
import PloopNBD
import PloopTLS
import TestSupport
import Testing

@Suite("NBD over TLS, record by record")
struct TLSTests {
  @Test("before TLS nothing is answered but STARTTLS and ABORT where it is required")
  func required() throws {
    let server = try TLSFixture(.require)
    let client = try server.live.client()
    client.greet()
    for option: UInt32 in [3, 6, 7, 8, 9, 10, 11, 99] {
      let data = option == 6 || option == 7 ? RawClient.goData("disk") : []
      let answer = client.ask(option, data)
      #expect(answer.type == optionError + 5 && !answer.words.isEmpty, "option \(option)")
    }
    #expect(client.ask(5, [1]).type == optionError + 3)
    #expect(client.ask(2).type == 1 && client.isHungUp)
    let old = try server.live.client()
    old.greet()
    old.send(RawClient.option(1, Array("disk".utf8)))
    #expect(old.isHungUp)
    #expect(server.disk.calls.withLock(\.isEmpty))
  }

  @Test("where it is allowed both are served; where there is none STARTTLS is refused, in step")
  func allowed() throws {
    let server = try TLSFixture(.allow)
    #expect(try server.live.client(of: "disk").call(0, length: 512).error == 0)
    try server.python("s = secure(greeted())\nassert go(s) == 1")
    let plain = try TLSFixture(.off)
    let client = try plain.live.client()
    client.greet()
    #expect(client.ask(5).type == optionError + 2)
    #expect(client.ask(7, RawClient.goData("disk")).type == 1)
  }

  @Test("nothing that was said before TLS holds within, and it is begun once")
  func reset() throws {
    try TLSFixture(.allow).python(
      """
      s = greeted()
      assert ask(s, 8) == 1
      s = secure(s)
      assert ask(s, 10, struct.pack('>I4sI', 4, b'disk', 0)) == INVALID, 'structured replies outlive it'
      assert ask(s, 5) == INVALID
      assert ask(s, 8) == 1 and ask(s, 8) == INVALID
      s = secure(greeted())
      assert go(s) == 1
      s.sendall(request(1, 0, 5, payload=b'hello') + request(0, 0, 5, 2))
      assert reply(s) == (1, b'') and reply(s, 5) == (2, b'hello')
      """)
  }

  @Test("what is put behind STARTTLS in the open ends the connection, whole or in part")
  func injection() throws {
    let server = try TLSFixture(.allow)
    for behind in [RawClient.option(3, []), RawClient.option(7, RawClient.goData("disk")), [0x49]] {
      let client = try server.live.client()
      client.greet()
      client.send(RawClient.option(5, []) + behind)
      #expect(client.answer(to: 5).type == 1 && client.isHungUp)
      let late = try server.live.client()
      late.greet()
      #expect(late.ask(5).type == 1)
      late.send(behind + [UInt8](repeating: 0, count: 64))
      // An alert at most; nothing of an answer.
      var rest: [UInt8] = []
      while true {
        let more = late.receive(1)
        guard !more.isEmpty else { break }
        rest += more
      }
      #expect(rest.count < 20)
    }
    #expect(server.security.handshakes.done == 0)
    #expect(becomes { server.security.handshakes.failed == 6 })
  }

  @Test("a handshake that stalls is ended, wherever it stops, and so is one that the end meets")
  func stalls() throws {
    let hasty = try TLSFixture(.require, seconds: 1)
    for start in [[], [0x16], [0x16, 3, 1, 2, 0, 1]] as [[UInt8]] {
      let client = try hasty.live.client()
      client.greet()
      #expect(client.ask(5).type == 1)
      client.send(start)
      #expect(client.receiveSome(1) == 0)
    }
    #expect(becomes { hasty.live.server.connectionCount == 0 })
    let patient = try TLSFixture(.require)
    let client = try patient.live.client()
    client.greet()
    #expect(client.ask(5).type == 1)
    let deadline = Deadline.after(seconds: 60)
    patient.live.server.stop(until: deadline)
    #expect(!deadline.hasPassed && patient.live.server.connectionCount == 0)
  }

  @Test("records come in any pieces, and are of any size")
  func pieces() throws {
    try TLSFixture(.require).python(
      """
      s = greeted()
      assert ask(s, 5) == 1
      into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
      t = context().wrap_bio(into, out)
      def pump(act):
          while True:
              try: return act()
              except ssl.SSLWantReadError:
                  flush(1)
                  into.write(s.recv(1 << 16))
      def flush(step):
          data = out.read()
          for i in range(0, len(data), step): s.sendall(data[i:i + step])
      pump(t.do_handshake)
      class Stream:
          step = 1
          def sendall(self, data): t.write(data); flush(self.step)
          def recv(self, count): return pump(lambda: t.read(count))
      c = Stream()
      assert go(c) == 1
      c.sendall(request(1, 0, 300, payload=b'a' * 300))
      assert reply(c) == (1, b'')
      c.step = 5000
      big = os.urandom(700000)
      c.sendall(request(1, 1000, len(big), 2, big))
      assert reply(c) == (2, b'')
      c.step = 1
      # One request in many records, and many in one.
      for byte in request(0, 1000, 10, 3): c.sendall(bytes([byte]))
      assert reply(c, 10) == (3, big[:10])
      c.sendall(b''.join(request(0, 1000 + i, 1, i) for i in range(500)))
      assert [reply(c, 1) for i in range(500)] == [(i, big[i:i + 1]) for i in range(500)]
      c.sendall(request(0, 1000, len(big), 4))
      assert reply(c, len(big)) == (4, big)
      """)
  }

  @Test("chains of certificates that fill more than one record are shown and understood")
  func chains() throws {
    let server = try TLSFixture(.require, verifiesClients: true, hasChain: true)
    try server.python(
      """
      for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
          c = context('guest-chain')
          c.minimum_version = c.maximum_version = version
          s = secure(greeted(), c)
          assert go(s) == 1
          s.sendall(request(0, 0, 512, 7))
          assert reply(s, 512) == (7, bytes(512))
      """)
    #expect(server.security.handshakes.done == 2)
  }

  @Test("who has said that he sends no more gets his answers, and a goodbye")
  func halfClosed() throws {
    let server = try TLSFixture(.require)
    try server.python(
      """
      s = greeted()
      assert ask(s, 5) == 1
      into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
      t = context().wrap_bio(into, out)
      def pump(act):
          while True:
              try: return act()
              except ssl.SSLWantReadError:
                  s.sendall(out.read())
                  more = s.recv(1 << 16)
                  into.write(more) if more else into.write_eof()
      pump(t.do_handshake)
      class Stream:
          def sendall(self, data): t.write(data); s.sendall(out.read())
          def recv(self, count): return pump(lambda: t.read(count))
      c = Stream()
      assert go(c) == 1
      t.write(request(1, 0, 3, payload=b'end') + request(0, 0, 2000000, 2))
      try: t.unwrap()
      except ssl.SSLWantReadError: pass
      s.sendall(out.read())
      assert reply(c) == (1, b'') and reply(c, 2000000)[1][:3] == b'end'
      pump(t.unwrap)
      # Without a goodbye it is over all the same.
      s = secure(greeted())
      assert go(s) == 1
      s.sendall(request(1, 0, 4, payload=b'torn'))
      assert reply(s) == (1, b'')
      socket.socket(fileno=os.dup(s.fileno())).shutdown(socket.SHUT_WR)
      assert ends(s)
      """)
    #expect(becomes { server.live.server.connectionCount == 0 })
    #expect(server.disk.content(0, 4) == Array("torn".utf8))
  }

  @Test(
    "a record that was changed on its way ends the connection with an alert and no goodbye, and nothing of it is done"
  )
  func damaged() throws {
    let server = try TLSFixture(.require)
    try server.python(
      """
      s = greeted()
      assert ask(s, 5) == 1
      into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
      t = context().wrap_bio(into, out)
      while True:
          try: t.do_handshake(); break
          except ssl.SSLWantReadError:
              s.sendall(out.read()); into.write(s.recv(1 << 16))
      class Stream:
          def sendall(self, data): t.write(data); s.sendall(out.read())
          def recv(self, count):
              while True:
                  try: return t.read(count)
                  except ssl.SSLWantReadError:
                      more = s.recv(1 << 16)
                      into.write(more) if more else into.write_eof()
      c = Stream()
      assert go(c) == 1
      c.sendall(request(1, 0, 4, payload=b'good'))
      assert reply(c) == (1, b'')
      t.write(request(1, 0, 4, 2, b'evil'))
      record = bytearray(out.read()); record[-1] ^= 1
      s.sendall(record)
      try: got = c.recv(1)
      except ssl.SSLError as error: assert 'BAD_RECORD_MAC' in error.reason, error.reason
      else: raise AssertionError(f'no alert but {got}')
      """)
    #expect(server.disk.content(0, 4) == Array("good".utf8))
    #expect(becomes { server.live.server.connectionCount == 0 })
    #expect(server.security.broken == 1 && server.security.handshakes.failed == 0)
  }

  @Test("nobody vouches for a certificate that was revoked; others of the same authority are good")
  func revoked() throws {
    let server = try TLSFixture(.require, verifiesClients: true, revoking: "guest")
    try server.python(
      """
      try: s = secure(greeted(), context('guest')); s.sendall(option(3)); answer(s)
      except (ssl.SSLError, ConnectionError, EOFError): pass
      else: raise AssertionError('it got in')
      """)
    #expect(becomes { server.security.handshakes.failed == 1 })
    #expect(server.security.handshakes.done == 0)
    let other = try TLSFixture(.require, verifiesClients: true, revoking: "expired")
    try other.python("s = secure(greeted(), context('guest'))\nassert go(s) == 1")
  }

  @Test(
    "clients that are to be verified show a certificate that is good now, for that use, of ours")
  func verified() throws {
    let server = try TLSFixture(.require, verifiesClients: true)
    try server.python(
      """
      s = secure(greeted(), context('guest'))
      assert go(s) == 1
      for who in [None, 'expired', 'stranger', 'server']:
          try: s = secure(greeted(), context(who))
          except (ssl.SSLError, ConnectionError): continue
          # With TLS 1.3 the client hears of it with its first answer.
          try: s.sendall(option(3)); answer(s)
          except (ssl.SSLError, ConnectionError, EOFError): continue
          raise AssertionError(f'{who} got in')
      """)
    #expect(becomes { server.security.handshakes.failed == 4 })
    #expect(server.security.handshakes.done == 1)
  }

  @Test("the list of clients says how they are kept from others, and who vouches for whom")
  func agreements() throws {
    let server = try TLSFixture(.allow)
    func agreement() -> Agreement? {
      server.live.server.clients(of: Array("disk".utf8)).first?.agreement
    }
    let plain = try server.live.client(of: "disk", style: .extended, status: true)
    let open = try #require(agreement())
    #expect(open.tls == nil && open.names.isEmpty && open.headers == "extended")
    #expect(open.contexts == ["base:allocation"])
    #expect(plain.call(2).error == nil)
    #expect(becomes { agreement() == nil })
    let guest = try server.begin(
      "s = secure(greeted(), context('guest'))\nassert ask(s, 8) == 1 and go(s) == 1\nassert ends(s)"
    )
    #expect(becomes { agreement()?.headers != nil })
    let secure = try #require(agreement())
    #expect(
      server.live.server.disconnectClients(of: Array("disk".utf8), until: .after(seconds: 120)))
    #expect(try guest.wait(seconds: 120) == 0)
    #expect(secure.tls?.contains("TLS1.3") == true && secure.headers == "structured")
    #expect(secure.names == ["dns:vm1.example", "uri:urn:vm1"])
  }

  @Test("an export that is for some is not listed for others, and says why it does not take them")
  func somebodysExport() throws {
    let server = try TLSFixture(.allow)
    server.live.directory.guards.withLock {
      $0[Array("disk".utf8)] = { $0.names.contains("dns:vm1.example") }
    }
    let plain = try server.live.client()
    plain.greet()
    #expect(plain.ask(3).items.isEmpty)
    #expect(plain.ask(8).type == 1)
    for (option, data) in [
      (6, RawClient.goData("disk")), (7, RawClient.goData("disk")),
      (9, RawClient.contextData("disk", [])), (10, RawClient.contextData("disk", [])),
    ] as [(UInt32, [UInt8])] {
      let answer = plain.ask(option, data)
      #expect(answer.type == optionError + 5 && answer.words.contains("not for unix:"))
    }
    plain.send(RawClient.option(1, Array("disk".utf8)))
    #expect(plain.isHungUp)
    try server.python(
      """
      s = secure(greeted())
      s.sendall(option(3))
      assert answer(s) == (1, b'')
      assert go(s) == POLICY
      s = secure(greeted(), context('guest'))
      s.sendall(option(3))
      assert answer(s)[0] == 2 and answer(s) == (1, b'')
      assert go(s) == 1
      """)
  }

  @Test("who does not read what he asked for over TLS gets all of it when he does")
  func slowReader() throws {
    let server = try TLSFixture(.require)
    try server.python(
      """
      s = secure(greeted())
      assert go(s) == 1
      data = os.urandom(1 << 20)
      s.sendall(request(1, 0, len(data), payload=data))
      assert reply(s) == (1, b'')
      for i in range(64): s.sendall(request(0, 0, len(data), i))
      for i in range(64):
          cookie, got = reply(s, len(data))
          assert got == data
      s.sendall(request(2, 0, 0))
      assert ends(s)
      """)
    #expect(becomes { server.live.server.connectionCount == 0 })
    #expect(server.live.server.bytesInFlight == 0)
  }
}
