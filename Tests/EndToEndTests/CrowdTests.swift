import TestSupport
import Testing

@Suite("Many NBD clients")
struct CrowdTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    #expect(try service.create("vm", sizeBytes: 16 << 20, clusterBytes: 1 << 16).status == 201)
  }

  @Test("leave memory, descriptors and threads as they were, whatever they did before they went")
  func thousands() throws {
    let said = try Tool.python(
      """
      import os, socket, struct, sys, threading, time
      path, process = sys.argv[1], sys.argv[2]

      def taken(s, count):
          data = b""
          while len(data) < count:
              more = s.recv(count - len(data))
              assert more, "the service hung up"
              data += more
          return data

      def entered(s):
          taken(s, 18)
          s.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">III", 7, 8, 2) + b"vm" + b"\\0\\0")
          while True:
              kind, length = struct.unpack(">II", taken(s, 20)[12:])
              taken(s, length)
              assert kind < 1 << 31, kind
              if kind == 1: return

      def request(kind, length, offset=0):
          return struct.pack(">IHHQQI", 0x25609513, 0, kind, 1, offset, length)

      def client(number):
          with socket.socket(socket.AF_UNIX) as s:
              s.connect(path)
              way = number % 7
              if way == 0: return
              if way == 1: return s.sendall(b"GET / HTTP/1.1")
              if way == 2: return taken(s, 18)
              entered(s)
              if way == 3: return
              if way == 4: return s.sendall(request(1, 100000) + bytes(50000))
              s.sendall(request(0, 4096))
              if way == 5: return
              taken(s, 16 + 4096)
              s.sendall(request(2, 0))

      def usage():
          with open(f"/proc/{process}/status") as file:
              values = dict(line.split(":", 1) for line in file)
          return int(values["Threads"]), len(os.listdir(f"/proc/{process}/fd")), int(values["RssAnon"].split()[0])

      faults = []
      def crowd(first, count, lanes=4):
          def lane(start):
              try:
                  for number in range(start, first + count, lanes): client(number)
              except BaseException as fault:
                  faults.append(fault)
          threads = [threading.Thread(target=lane, args=(first + n,)) for n in range(lanes)]
          for thread in threads: thread.start()
          for thread in threads: thread.join()
          assert not faults, faults

      def rest(most):
          deadline = time.monotonic() + 120
          while True:
              now = usage()
              if most is None or now[0] <= most[0] and now[1] <= most[1]: return now
              assert time.monotonic() < deadline, (now, most)
              os.sched_yield()

      before = usage()
      crowd(0, 1000)
      # Threads of the engine may have come; each client had one of its own.
      early = rest((before[0] + 8, before[1] + 4))
      crowd(1000, 9000)
      late = rest((early[0] + 4, early[1] + 2))
      assert late[2] <= early[2] + (16 << 10), (early, late)
      print("flat")
      """, [service.nbdSocket, "\(service.process)"], seconds: 400)
    #expect(said.output == "flat\n", "\(said.output)")
    _ = try service.end()
  }

  /// Linux lets a read of a file see half of a write beside it; two writes it keeps apart, and so do we.
  @Test(
    "that write the same sectors leave each of them whole, where a cluster is new and where it lies below",
    arguments: [false, true])
  func sectors(hasSnapshot: Bool) throws {
    if hasSnapshot {
      try Tool.shell("qemu-io -f raw -c 'write -P 9 0 64k' '\(service.uri("vm"))'")
      #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
    }
    let said = try Tool.python(
      """
      import multiprocessing, nbd, random, sys
      together = multiprocessing.Barrier(8)
      def work(number):
          own = random.Random(number)
          handle = nbd.NBD()
          handle.connect_uri(sys.argv[1])
          for turn in range(150):
              sectors = [own.randrange(8) for _ in range(12)]
              together.wait(120)
              under_way = [
                  handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(bytes([number + 10]) * 512)), sector * 512)
                  for sector in sectors]
              while under_way:
                  if handle.aio_command_completed(under_way[0]): under_way.pop(0)
                  else: handle.poll(1000)
              together.wait(120)
              seen = handle.pread(8 * 512, 0)
              for sector in range(8):
                  one = seen[sector * 512:(sector + 1) * 512]
                  assert one == one[:1] * 512 and one[0] in {0, 9, *range(10, 18)}, (number, turn, sector)
          handle.shutdown()
      writers = [multiprocessing.Process(target=work, args=(number,)) for number in range(8)]
      for writer in writers: writer.start()
      for writer in writers: writer.join()
      ends = [writer.exitcode for writer in writers]
      print("whole" if not any(ends) else ends)
      """, [service.uri("vm")], seconds: 300)
    #expect(said.output == "whole\n", "\(said.output)")
  }
}
