import PloopNBD
import PloopTLS
import TestSupport
import Testing

extension TemporaryFolder {
  /// Makes a file that only its owner can read, and says where it is.
  func secret(_ name: String, _ text: String) throws -> String {
    try Tool.shell("umask 077 && printf '\(text)' > '\(path)/\(name)'")
    return "\(path)/\(name)"
  }
}

@Suite("Files of pre-shared keys")
struct KeyFileTests {
  private static let key = "00112233445566778899aabbCCDDEEFF"

  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func fault(_ path: String) -> String? {
    do throws(TLSFault) { _ = try TLSIdentity(nil, keyPath: path) } catch {
      return error.description
    }
    return nil
  }

  @Test("what psktool and openssl write is taken")
  func good() throws {
    let key = KeyFileTests.key
    for text in [
      "a:\(key)\\n", "a:\(key)", "a:\(key)\\nb:\(key)\(key)\\n", "n\u{E9}:\(key)\\n",
      "\(String(repeating: "n", count: 128)):\(String(repeating: "5A", count: 512))\\n",
    ] { #expect(try fault(folder.secret("keys", text)) == nil, "\(text.prefix(80))") }
  }

  @Test("a line that is not understood is told with its number, and not what it says")
  func bad() throws {
    let key = KeyFileTests.key
    for line in [
      "alice:", "alice", ":\(key)", "alice:\(key.dropLast(2))", "alice:\(key)0", "alice:\(key)\\r",
      "alice:\(key) ", "alice: \(key)", "alice:\(key):", "alice:\(key)g0", "#616c696365:\(key)",
      "al ice:\(key)", "bob:\(key)", "", "alice:\(key)\\000", "al\\000ice:\(key)", "\\377:\(key)",
      "\(String(repeating: "n", count: 129)):\(key)",
      "alice:\(String(repeating: "5A", count: 513))",
    ] {
      let words = try fault(folder.secret("keys", "bob:\(key)\\n\(line)\\ncarol:\(key)\\n"))
      #expect(
        words?.contains("line 2") == true && words?.contains("001122") == false,
        "\(line.prefix(80)): \(words ?? "taken")")
    }
    #expect(try fault(folder.secret("keys", ""))?.contains("no keys") == true)
  }

  @Test("only a regular file that is not open to everybody is read, and no other is waited for")
  func kinds() throws {
    let path = try folder.secret("keys", "a:\(KeyFileTests.key)\\n")
    try Tool.shell(
      "cd '\(folder.path)' && mkfifo -m 600 fifo && ln -s keys link && mkdir -m 700 sub")
    #expect(fault("\(folder.path)/link") == nil)
    for (name, words) in [
      ("fifo", "no regular file"), ("sub", "no regular file"), ("none", "cannot be read"),
    ] { #expect(fault("\(folder.path)/\(name)")?.contains(words) == true, "\(name)") }
    for mode in ["604", "602"] {
      try Tool.shell("chmod \(mode) '\(path)'")
      #expect(fault(path)?.contains("open to everybody") == true, "\(mode)")
    }
    try Tool.shell("truncate -s 1M '\(path)' && echo >> '\(path)' && chmod 600 '\(path)'")
    #expect(fault(path)?.contains("more than") == true)
  }

  @Test("over TLS 1.2 a key needs an exchange of its own beside it, and has to be the right one")
  func exchanges() throws {
    let key = KeyFileTests.key
    let server = try TLSFixture(.require, keys: "alice:\(key)\\n")
    // openssl speaks to a socket behind which STARTTLS has been said.
    try server.python(
      """
      import subprocess, threading
      def attempt(number, *options):
          path = f'{tls}/door{number}'
          door = socket.socket(socket.AF_UNIX); door.bind(path); door.listen()
          def relay():
              s = greeted(); assert ask(s, 5) == 1
              c, _ = door.accept()
              def copy(a, b):
                  try:
                      while data := a.recv(1 << 16): b.sendall(data)
                      b.shutdown(socket.SHUT_WR)
                  except OSError: pass
              other = threading.Thread(target=copy, args=(s, c)); other.start()
              copy(c, s); other.join()
              s.close(); c.close()
          thread = threading.Thread(target=relay); thread.start()
          done = subprocess.run(
              ['openssl', 's_client', '-unix', path, '-tls1_2', *options],
              input=b'Q\\n', capture_output=True, timeout=120)
          thread.join(); door.close()
          return done.returncode == 0 and b'Cipher is (NONE)' not in done.stdout
      right, wrong = '\(key)', '\(key)'.replace('00', '01')
      alice = ['-psk_identity', 'alice', '-psk']
      assert attempt(0, *alice, right, '-cipher', 'ECDHE-PSK-CHACHA20-POLY1305')
      assert not attempt(2, *alice, right, '-cipher', 'PSK-AES128-GCM-SHA256')
      assert not attempt(3, *alice, right, '-cipher', 'RSA-PSK-AES128-GCM-SHA256')
      assert not attempt(4, *alice, wrong, '-cipher', 'ECDHE-PSK-CHACHA20-POLY1305')
      assert not attempt(5, '-psk_identity', 'bob', '-psk', right, '-cipher', 'ECDHE-PSK-CHACHA20-POLY1305')
      """)
    #expect(becomes { server.security.handshakes.failed == 4 })
    #expect(server.security.handshakes.done == 1)
  }
}
