internal import TestSupport

/// `qemu-storage-daemon` with one disk, which it serves and backs up.
struct StorageDaemon {
  let contender: Contender
  private let monitor: String

  /// What is said to its monitor: a connection, and commands until an event comes.
  private static let prelude = """
    import json, socket, sys, time
    line = socket.socket(socket.AF_UNIX)
    line.connect(sys.argv[1])
    stream = line.makefile("rw")
    def hear():
        heard = json.loads(stream.readline())
        if "error" in heard: sys.exit(json.dumps(heard))
        return heard
    def say(command, **arguments):
        stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\\n")
        stream.flush()
        while "return" not in (heard := hear()): events.append(heard)
        return heard["return"]
    def wait(event):
        while not any(e["event"] == event for e in events): events.append(hear())
    events = []
    hear()
    say("qmp_capabilities")

    """

  init(_ servers: Servers, _ disk: String) throws {
    let socket = try servers.path(.nbdkit, "monitor")
    monitor = socket
    contender = try servers.run(.qcow2, export: "disk", files: [disk]) { door in
      [
        "qemu-storage-daemon", "--chardev", "socket,id=m,server=on,wait=off,path=\(socket)",
        "--monitor", "chardev=m", "--blockdev",
        "driver=qcow2,node-name=disk,discard=unmap,file.driver=file,file.filename=\(disk)",
        "--nbd-server", "addr.type=unix,addr.path=\(door),max-connections=16", "--export",
        "type=nbd,id=e,node-name=disk,name=disk,writable=on",
      ]
    }
  }

  private func say(_ program: String, _ arguments: [String] = []) throws -> String {
    try Tool.python(Self.prelude + program, [monitor] + arguments, seconds: 600).output
  }

  /// Begins a full backup to an export of the disk's size.
  private static let begin = """
    say("blockdev-add", **{"driver": "nbd", "node-name": "target",
        "server": {"type": "unix", "path": sys.argv[2]}, "export": ""})
    start = time.monotonic()
    say("blockdev-backup", **{"job-id": "backup", "device": "disk", "target": "target", "sync": "full"})

    """

  /// Backs the disk up, until the target has been asked to flush.
  ///
  /// - Returns: seconds.
  func backUp(to socket: String) throws -> Double {
    let output = try say(
      Self.begin + """
        wait("BLOCK_JOB_COMPLETED")
        say("blockdev-del", **{"node-name": "target"})
        print(time.monotonic() - start)
        """, [socket])
    guard let seconds = Double(output.trimmingNewline) else { throw BenchFailure(output) }
    return seconds
  }

  func beginBackup(to socket: String) throws { _ = try say(Self.begin, [socket]) }

  /// Where the machine kept everybody waiting, the backup may have come to its end before.
  func cancelBackup() throws {
    _ = try say(
      """
      if any(job["id"] == "backup" for job in say("query-jobs")):
          say("block-job-cancel", device="backup", force=True)
          wait("BLOCK_JOB_CANCELLED")
      """)
  }
}
