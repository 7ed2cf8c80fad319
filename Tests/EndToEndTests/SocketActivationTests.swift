import Foundation
import TestSupport
import Testing

@Suite("Sockets that were handed over")
struct SocketActivationTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// A service that has one disk.
  private func servingService() throws -> ActivatedService {
    let service = try ActivatedService(in: folder.path)
    try service.awaitReady()
    let said = try service.call(
      """
      http://localhost/v1/devices -H 'Content-Type: application/json' \
        -d '{"id":"vm","create":{"directory":"vm","size":16777216},"export":{"name":"vm"}}'
      """)
    #expect(said.contains("\"id\":\"vm\""), "\(said)")
    return service
  }

  @Test("it serves at them, says so in URIs, leaves them to who listens, and listens nowhere else")
  func serves() throws {
    let service = try servingService()
    let port = try Tool.shell("cat '\(folder.path)/port'").output.filter(\.isNumber)
    let said = Data(try service.call("http://localhost/v1/exports/vm").utf8)
    let export = try JSONSerialization.jsonObject(with: said) as? [String: Any]
    let uris = try #require(export?["uris"] as? [String])
    #expect(
      uris == [
        "nbd+unix:///vm?socket=\(service.nbdSocket)", "nbd://127.0.0.1:\(port)/vm",
      ])
    for uri in uris {
      #expect(try Tool.shell("nbdinfo --size '\(uri)'").output == "16777216\n")
    }
    // The program is told of them once, and what it starts is not.
    #expect(
      try Tool.shell(
        """
        pid=$(pgrep -P \(service.process)) && cd /proc/$pid/fd && for fd in 3 4 5; do
          grep flags ../fdinfo/$fd; done | sort -u
        """
      ).output.contains("02004002"))
    #expect(try service.end() == 0)
    try Tool.shell("test -S '\(service.nbdSocket)' && test ! -e '\(folder.path)/var'")
  }

  @Test(
    "what cannot be served is refused with a sentence",
    arguments: [
      ("nbd:http:web", "127.0.0.1", "a socket that was handed over is called web"),
      ("nbd:http", "127.0.0.1", "LISTEN_FDNAMES has 2 names for 3 sockets"),
      ("nbd:http:nbd", "0.0.0.0", "nbd-listen: 0.0.0.0 is not this host's loopback"),
      ("nbd:http:http", "0.0.0.0", "http-listen: 0.0.0.0 is not this host's loopback"),
    ])
  func refused(_ names: String, _ host: String, _ sentence: String) throws {
    let service = try ActivatedService(in: folder.path, names: names, host: host)
    let said = try service.fault()
    #expect(said.contains(sentence), "\(said)")
  }

  /// Writes numbered blocks through something that reconnects, has the service started again in the middle, and reads
  /// everything back.
  ///
  /// - Parameter client: Python that defines `write(place, number)` and `check(place, number)`.
  private func write(over service: ActivatedService, _ client: String) throws {
    try Tool.python(
      """
      import os, signal, subprocess
      folder, address = '\(folder.path)', '\(service.nbdSocket)'
      \(client)
      last, restart, number = {}, None, 0
      # Fifty before, however many meanwhile, and fifty after.
      while restart is None or number < restart + 50:
          number += 1
          write(number % 200, number % 250 + 1); last[number % 200] = number % 250 + 1
          if number == 50: os.kill(\(service.process), signal.SIGUSR1)
          if restart is None and os.path.exists(f'{folder}/restarted'): restart = number
      for place, value in last.items(): check(place, value)
      """, seconds: 240)
  }

  @Test("started again, nobody is refused, and libnbd behind nbdkit's retries loses nothing")
  func retried() throws {
    let service = try servingService()
    try write(
      over: service,
      """
      import nbd, socket, threading
      kit = subprocess.Popen(['nbdkit', '-f', '-U', f'{folder}/kit.sock', '--filter=retry', 'nbd',
          f'uri=nbd+unix:///vm?socket={address}', 'retries=200', 'retry-delay=1',
          'retry-exponential=no'])
      while not os.path.exists(f'{folder}/kit.sock'): assert kit.poll() is None
      h = nbd.NBD(); h.connect_unix(f'{folder}/kit.sock')
      # Whoever connects meanwhile waits, and is greeted.
      over, known, refused = threading.Event(), [], []
      def knock():
          while not over.is_set():
              s = socket.socket(socket.AF_UNIX); s.settimeout(200)
              try: s.connect(address); known.append(s.recv(8))
              except OSError as e: refused.append(e)
              s.close()
      knocking = threading.Thread(target=knock); knocking.start()
      def write(place, number): h.pwrite(bytes([number]) * 65536, place * 65536)
      def check(place, number):
          over.set(); knocking.join()
          assert known and not refused, refused[:3]
          assert h.pread(65536, place * 65536) == bytes([number]) * 65536, place
      import atexit
      atexit.register(lambda: (over.set(), kit.kill()))
      """)
    #expect(try service.end() == 0)
  }

  @Test("started again, QEMU with reconnect-delay loses nothing")
  func reconnected() throws {
    let service = try servingService()
    try write(
      over: service,
      """
      import atexit
      io = subprocess.Popen(['qemu-io', '--image-opts',
          f'driver=raw,file.driver=nbd,file.path={address},file.export=vm,file.reconnect-delay=200'],
          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
      atexit.register(io.kill)
      def ask(words, done):
          io.stdin.write(words + '\\n'); io.stdin.flush()
          line = ''
          while 'ops' not in line:
              line = io.stdout.readline()
              assert line and 'failed' not in line and 'rror' not in line, line
      def write(place, number): ask(f'write -P {number} {place * 65536} 64k', 'wrote')
      def check(place, number): ask(f'read -P {number} {place * 65536} 64k', 'read')
      """)
    #expect(try service.end() == 0)
  }
}
