import TestSupport
import Testing

@Suite("The life of a disk")
struct LifeOfADiskTests {
  /// Makes `raw`, an ext4, and `disk.hds`, the same as a ploop image by qemu-img.
  private func makeFilesystem(_ service: RunningService) throws {
    try Tool.shell(
      """
      cd '\(service.images)' && truncate -s 64M raw && mkfs.ext4 -q raw &&
      qemu-img convert -f raw -O parallels raw disk.hds
      """)
  }

  @Test("An ext4 made by mkfs, turned into a ploop image by qemu-img, is copied out identical")
  func qemuImageIsReadable() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    try makeFilesystem(service)
    let reply = try service.attach("vm1", ["main:disk.hds"])
    #expect(reply.status == 201, "\(reply.text)")
    #expect(reply.json["state"] as? String == "online")
    try Tool.shell("nbdcopy '\(service.uri("vm1"))' '\(folder.path)/copy'")
    try Tool.shell("cmp '\(folder.path)/copy' '\(service.images)/raw'")
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    try Tool.shell("qemu-img check -f parallels '\(service.images)/disk.hds'")
  }

  @Test("A new disk is created, filled over NBD, closed clean, and comes back with its content")
  func created() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    func create() throws -> RunningService.Reply {
      try service.create("vm1", sizeBytes: 64 << 20, clusterBytes: 65536)
    }
    #expect(try create().status == 201)
    try Tool.shell(
      """
      cd '\(folder.path)' && truncate -s 64M raw && mkfs.ext4 -q -d /etc/apt raw &&
      nbdcopy --flush raw '\(service.uri("vm1"))'
      """)
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    let image = "\(service.images)/vm1/root.hds"
    try Tool.shell("qemu-img check -f parallels '\(image)'")
    try Tool.shell("qemu-img convert -f parallels -O raw '\(image)' '\(folder.path)/back'")
    try Tool.shell("cmp '\(folder.path)/raw' '\(folder.path)/back'")
    // The same id and folder again: the image is in the way, and is attached as it is.
    #expect(try create().code == "image-exists")
    #expect(try service.attach("vm1", ["vm1/root.hds"]).status == 201)
    try Tool.shell("nbdcopy '\(service.uri("vm1"))' '\(folder.path)/again'")
    try Tool.shell("cmp '\(folder.path)/raw' '\(folder.path)/again'")
  }

  @Test(
    "Random operations over several connections agree with a model, with the map, and after closing"
  )
  func model() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    try Tool.shell(
      """
      cd '\(service.images)' && head -c 24M /dev/urandom > base.raw && truncate -s 32M base.raw &&
      cp base.raw '\(folder.path)/model'
      """)
    _ = try service.create("new", sizeBytes: 33_554_432, clusterBytes: 65_536)
    #expect(try service.delete("/v1/devices/new").status == 204)
    let body = """
      {"id":"vm1","deltas":[{"path":"base.raw","format":"raw"},{"path":"new/root.hds"}],"export":{"name":"vm1"}}
      """
    let reply = try service.post("/v1/devices", body)
    #expect(reply.status == 201, "\(reply.text)")
    let seed = UInt32.random(in: 1...UInt32.max)
    print("seed \(seed)")
    try Tool.python(
      """
      import nbd, random, sys
      uri, path, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
      rng = random.Random(seed)
      clients = []
      for _ in range(4):
          h = nbd.NBD()
          h.add_meta_context("base:allocation")
          h.connect_uri(uri)
          clients.append(h)
      size = clients[0].get_size()
      model = bytearray(open(path, "rb").read())
      assert size == len(model)
      def span():
          start = rng.randrange(size)
          if rng.random() < 0.5: start &= ~4095
          length = rng.choice([1, 512, 4096, 10000, 65536, 65536 * 3, 500000])
          return start, min(length, size - start)
      for step in range(1500):
          h = rng.choice(clients)
          start, length = span()
          what = rng.random()
          flags = nbd.CMD_FLAG_FUA if rng.random() < 0.05 else 0
          if what < 0.35:
              data = rng.randbytes(length)
              h.pwrite(data, start, flags)
              model[start:start + length] = data
          elif what < 0.5:
              if rng.random() < 0.5: flags |= nbd.CMD_FLAG_NO_HOLE
              h.zero(length, start, flags)
              model[start:start + length] = bytes(length)
          elif what < 0.6:
              # Only whole clusters promise zeroes; round inwards and give the rest no expectation.
              first, end = -(-start // 65536) * 65536, (start + length) // 65536 * 65536
              if first < end:
                  h.trim(end - first, first, flags)
                  model[first:end] = bytes(end - first)
          elif what < 0.63: h.flush()
          elif what < 0.65: h.cache(length, start)
          else:
              data = h.pread(length, start)
              assert data == model[start:start + length], (seed, step, start, length)
      for h in clients: h.flush()
      assert clients[1].pread(size, 0) == model, seed
      # The allocation map: holes read as zero.
      seen = []
      position = 0
      while position < size:
          def note(name, offset, entries, error):
              seen.append(list(entries))
          clients[0].block_status(size - position, position, note)
          for length, flags in zip(seen[-1][::2], seen[-1][1::2]):
              if flags & 2: assert model[position:position + length] == bytes(length), (seed, position)
              position += length
      open(path, "wb").write(model)
      """, [service.uri("vm1"), "\(folder.path)/model", "\(seed)"])
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    try Tool.shell("qemu-img check -f parallels '\(service.images)/new/root.hds'")
    #expect(try service.post("/v1/devices", body).status == 201)
    try Tool.shell("nbdcopy '\(service.uri("vm1"))' '\(folder.path)/copy'")
    try Tool.shell("cmp '\(folder.path)/copy' '\(folder.path)/model'")
  }

  @Test("fio writes and verifies over four connections")
  func fio() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    try service.create("vm1", sizeBytes: 64 << 20)
    try Tool.shell(
      """
      cd '\(folder.path)' && fio --name=v --ioengine=nbd --uri='\(service.uri("vm1"))' --rw=randwrite \
        --bs=4k --size=16M --numjobs=4 --offset_increment=16M --iodepth=8 --verify=crc32c \
        --do_verify=1 --verify_fatal=1 --group_reporting
      """, seconds: 120)
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    try Tool.shell("qemu-img check -f parallels '\(service.images)/vm1/root.hds'")
  }

  @Test("An ext4 in a ploop image is mounted through nbdfuse and a loop device")
  func mounted() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    try makeFilesystem(service)
    #expect(try service.attach("vm1", ["disk.hds"]).status == 201)
    try Tool.shell(
      """
      set -e
      cd '\(folder.path)' && mkdir fuse mnt
      end() {
        set +e
        mountpoint -q mnt && umount mnt
        [ -z "$loop" ] || losetup -d "$loop"
        for try in $(seq 200); do umount fuse 2>/dev/null && break; read -t 0.05 < <(:); done
        wait $server
      }
      trap end EXIT
      nbdfuse fuse/disk '\(service.uri("vm1"))' &
      server=$!
      until [ -s fuse/disk ]; do kill -0 $server; read -t 0.05 < <(:) || true; done
      loop=$(losetup -f --show fuse/disk)
      mount "$loop" mnt
      cp -r /etc/apt mnt/ && sync -f mnt && diff -r /etc/apt mnt/apt
      umount mnt
      e2fsck -fn "$loop"
      """, seconds: 60)
    #expect(try service.delete("/v1/devices/vm1?mode=hard").status == 204)
    let image = "\(service.images)/disk.hds"
    try Tool.shell("qemu-img check -f parallels '\(image)'")
    try Tool.shell(
      """
      qemu-img convert -f parallels -O raw '\(image)' '\(folder.path)/back' &&
      e2fsck -fn '\(folder.path)/back' && debugfs -R 'ls /apt' '\(folder.path)/back' | grep -q sources
      """)
  }
}
