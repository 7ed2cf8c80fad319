import TestSupport
import Testing

/// How a client gets to an export.
enum Transport: String, CaseIterable {
  case unix, tcp, tls
}

@Suite("Every client, every kind of export, every way there")
struct ClientMatrixTests {
  private static let sizeBytes = 4 << 20

  private let folder: TemporaryFolder
  private let service: RunningService
  private let port: String

  /// The disk `vm` with its exports `vm`, `ro` (read-only), `old` (a snapshot) and `vm@backup` (an instant); what they
  /// show lies in files of the same names. The disk `work` is for who writes.
  init() throws {
    folder = try TemporaryFolder()
    try Tool.shell(
      "cd '\(folder.path)' && umask 077 && echo alice:$(openssl rand -hex 32) > keys.psk")
    service = try RunningService(
      in: folder.path,
      ["--nbd-tls-psk", "\(folder.path)/keys.psk", "--nbd-tls", "allow"], nbdListen: "127.0.0.1:0")
    port = String(try service.nbdAddress().split(separator: ":").last ?? "")
    for id in ["vm", "work"] {
      #expect(
        try service.create(id, sizeBytes: Self.sizeBytes, clusterBytes: 1 << 16).status == 201)
    }
    func write(_ commands: String) throws {
      try Tool.shell("qemu-io -f raw \(commands) '\(service.uri("vm"))'")
    }
    func keep(_ name: String) throws {
      try Tool.shell("nbdcopy '\(service.uri("vm"))' '\(folder.path)/\(name)'")
    }
    try write("-c 'write -P 1 0 1M' -c 'write -P 2 1100k 33k'")
    try keep("old")
    let taken = try service.post("/v1/devices/vm/snapshots", "{}")
    let guid = try #require(taken.json["uuid"] as? String)
    try write("-c 'write -P 3 512k 1M' -c 'write -z 0 64k'")
    try keep("vm@backup")
    let backup =
      "{\"uuid\":\"m\",\"on_deadline\":\"spill\",\"spill\":{\"path\":\"vm/spill\",\"max_bytes\":16777216}}"
    #expect(try service.post("/v1/devices/vm/push-backup", backup).status == 201)
    try write("-c 'write -P 4 3M 77k' -c 'discard 256k 128k'")
    try keep("vm")
    try Tool.shell("ln '\(folder.path)/vm' '\(folder.path)/ro'")
    for more in ["\"name\":\"ro\",\"readonly\":true", "\"name\":\"old\",\"snapshot\":\"\(guid)\""] {
      let made = try service.post("/v1/exports", "{\"device\":\"vm\",\(more)}")
      #expect(made.status == 201, "\(made.text)")
    }
  }

  /// Shell words: the URI of an export, and how QEMU is told.
  private func names(_ export: String, _ transport: Transport) -> String {
    let (uri, opts) =
      switch transport {
      case .unix: (service.uri(export), "path=\(service.nbdSocket)")
      case .tcp: ("nbd://127.0.0.1:\(port)/\(export)", "host=127.0.0.1,port=\(port)")
      case .tls:
        (
          "nbds://alice@127.0.0.1:\(port)/\(export)?tls-psk-file=\(folder.path)/keys.psk",
          "host=127.0.0.1,port=\(port),tls-creds=t"
        )
      }
    return """
      set -euo pipefail; cd '\(folder.path)' && mkdir -p mnt
      uri='\(uri)' opts='driver=raw,file.driver=nbd,file.export=\(export),\(opts.split(separator: ",").map { "file.\($0)" }.joined(separator: ","))'
      tls='--object tls-creds-psk,id=t,endpoint=client,dir=\(folder.path),username=alice'
      fuse() {
        timeout 100 nbdfuse "$@" & fuse=$!
        until test -e mnt/nbd; do kill -0 $fuse || return 1; sleep 0.02; done
      }
      unfuse() { kill $fuse; wait $fuse || true; }

      """
  }

  @Test(
    "libnbd's and QEMU's programs agree about what an export is and holds",
    arguments: ["vm", "ro", "old", "vm@backup"], Transport.allCases)
  func read(_ export: String, _ transport: Transport) throws {
    let isLive = export == "vm"
    try Tool.shell(
      """
      \(names(export, transport))
      test $(nbdinfo --size "$uri") = \(Self.sizeBytes)
      nbdinfo --json "$uri" | grep '"is_read_only": \(!isLive)'
      nbdinfo --json "$uri" | grep '"TLS": \(transport == .tls)'
      nbdinfo --can multi-conn "$uri"
      nbdcopy --connections=4 "$uri" copy && cmp copy '\(export)'
      nbddump "$uri" > dump && nbdkit -U - -r file '\(export)' --run 'nbddump "$uri"' | cmp - dump
      # Neither nbdfuse nor fio takes a file of keys from a URI, and `bench` no object.
      if [ \(transport) != tls ]; then
        fuse -r mnt "$uri"; cmp mnt/nbd '\(export)'; unfuse
        qemu-img bench --image-opts -t none -c 100 -d 16 -s 4096 "$opts" > bench
      fi
      qemu-img convert $tls --image-opts "$opts" -O raw copy && cmp copy '\(export)'
      qemu-img compare $tls --image-opts "$opts" "driver=raw,file.driver=file,file.filename=\(export)"
      # Both say the same of what is there: where a run of data begins, and how long it is.
      qemu-img map $tls --output=json --image-opts "$opts" | tr '{' '\\n' |
        sed -n 's/.*"start": \\([0-9]*\\), "length": \\([0-9]*\\),.*"data": \\(.\\).*/\\1 \\2 \\3/p' > qemu
      nbdinfo --map "$uri" | awk '{ print $1, $2, ($3 % 2 ? "f" : "t") }' > libnbd
      cmp qemu libnbd && test -s qemu
      """, seconds: 240)
    if !isLive {
      let written = try Tool.shell(
        "\(names(export, transport)) qemu-io $tls --image-opts -c 'write 0 512' \"$opts\"",
        check: false)
      #expect(written.status != 0, "\(written.output)")
    }
  }

  @Test(
    "qemu-storage-daemon pulls a backup of each kind",
    arguments: ["vm", "ro", "old", "vm@backup"])
  func pull(_ export: String) throws {
    let said = try Tool.python(
      """
      import json, subprocess, sys
      socket, export, copy = sys.argv[1:]
      subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", copy, "\(Self.sizeBytes)"], check=True)
      daemon = subprocess.Popen([
          "qemu-storage-daemon", "--chardev", "stdio,id=c", "--monitor", "chardev=c",
          "--blockdev", json.dumps({"driver": "nbd", "node-name": "source", "read-only": True, "export": export,
                                    "server": {"type": "unix", "path": socket}}),
          "--blockdev", json.dumps({"driver": "qcow2", "node-name": "copy", "file": {"driver": "file", "filename": copy}})],
          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
      def say(command, **arguments):
          print(json.dumps({"execute": command, "arguments": arguments}), file=daemon.stdin, flush=True)
      def hear(wanted):
          for line in daemon.stdout:
              said = json.loads(line)
              assert "error" not in said, said
              if wanted(said): return said
          raise SystemExit("it has ended")
      say("qmp_capabilities")
      hear(lambda said: "return" in said)
      say("blockdev-backup", **{"job-id": "pull", "device": "source", "target": "copy", "sync": "full"})
      end = hear(lambda said: said.get("event") == "BLOCK_JOB_COMPLETED")
      assert "error" not in end["data"], end
      say("quit")
      assert daemon.wait(60) == 0
      print("pulled")
      """, [service.nbdSocket, export, "\(folder.path)/copy.qcow2"], seconds: 200)
    #expect(said.output == "pulled\n", "\(said.output)")
    try Tool.shell("cd '\(folder.path)' && qemu-img compare -f qcow2 -F raw copy.qcow2 '\(export)'")
  }

  @Test(
    "what writes finds again what it has written, and a file system is whole",
    arguments: Transport.allCases)
  func write(_ transport: Transport) throws {
    try Tool.shell(
      """
      \(names("work", transport))
      qemu-io $tls --image-opts -c 'write -P 7 0 1M' -c 'write -z 64k 64k' -c 'discard 128k 64k' -c flush \
        -c 'read -P 7 0 64k' -c 'read -P 0 64k 64k' -c 'read -P 7 192k 64k' "$opts" > io
      if grep -i fail io; then exit 1; fi
      [ \(transport) != tls ] || exit 0
      qemu-img bench --image-opts -w -t none -c 100 -d 16 -s 4096 --flush-interval=20 "$opts" > bench
      fio --name=x --ioengine=nbd --uri="$uri" --rw=randwrite --bsrange=512-64k --iodepth=8 \
        --size=\(Self.sizeBytes) --verify=crc32c --do_verify=1 --verify_fatal=1 > fio
      mkdir -p tree && head -c 300000 /dev/urandom > tree/file
      fuse mnt "$uri"; mkfs.ext4 -q -F -d tree mnt/nbd; unfuse
      fuse -r mnt "$uri"; e2fsck -fn mnt/nbd; debugfs -R 'dump /file out' mnt/nbd; unfuse
      cmp tree/file out
      """, seconds: 240)
  }

  @Test("all kinds are listed, by Debian's nbd-client too")
  func list() throws {
    let listed = try Tool.shell(
      """
      export PATH="$PATH:/usr/sbin:/sbin"
      nbd-client -l 127.0.0.1 \(port); nbdinfo --list 'nbd+unix://?socket=\(service.nbdSocket)' | grep export=
      """
    ).output
    for name in ["vm", "ro", "old", "vm@backup", "work"] {
      #expect(
        listed.split(separator: "\n").contains { $0 == name || $0.hasPrefix("\(name): ") },
        "\(listed)")
      #expect(listed.contains("export=\"\(name)\""), "\(listed)")
    }
  }
}
