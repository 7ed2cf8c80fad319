import TestSupport
import Testing

@Suite("ploopd image create and info")
struct ImageCommandCreateTests {
  let fixture: ImageCommandFixture

  init() throws { fixture = try ImageCommandFixture() }

  @Test(
    "What create makes is accepted by qemu-img check and by ploop check as it is",
    arguments: [1, 2], ["32K", "64K", "1M", "4M"])
  func foreignTools(version: Int, cluster: String) throws {
    let made = try fixture.json(
      "ploopd image create a.img --size 64M --cluster-size \(cluster) --version \(version) --json")
    #expect(made["size_bytes"] as? Int == 64 << 20)
    #expect(made["version"] as? Int == version)
    try fixture.shell("qemu-img check -f parallels a.img && ploop check -f -c -r a.img")
    #expect(try fixture.status("ploopd image check a.img") == 0)
  }

  @Test("Create says what it made")
  func sentence() throws {
    let output = try fixture.shell("ploopd image create a.img --size 1536M").output
    #expect(
      output
        == "a.img: made, version 2, a disk of 1.5 GiB (1610612736 bytes) in clusters of 1 MiB\n")
  }

  @Test(
    "A size that no image can have is wrong usage, and nothing is made",
    arguments: [
      ("--size 1500000", "nearest: 1048576 or 2097152"), ("--size 5", "nearest: 1048576."),
      ("--size 0", "at least one cluster"), ("--size 3T --version 1", "ends at"),
      ("--size 1M --cluster-size 96K", "power of two"), ("--size 1M --version 3", "1 or 2"),
    ])
  func refusedSizes(options: String, text: String) throws {
    let result = try fixture.shell("ploopd image create a.img \(options)", check: false)
    #expect(result.status == 64)
    #expect(result.output.contains(text), "\(result.output)")
    #expect(try fixture.status("test -e a.img") == 1)
  }

  @Test("A file that exists is refused and left as it is")
  func existing() throws {
    try fixture.shell("echo precious > a.img")
    let result = try fixture.shell("ploopd image create a.img --size 1M", check: false)
    #expect(result.status == 1)
    #expect(result.output == "ploopd: a.img: exists already; choose another name\n")
    #expect(try fixture.shell("cat a.img").output == "precious\n")
  }

  @Test("A create that finds no space removes what it had made")
  func noSpace() throws {
    let folder = try TemporaryFolder()
    let disk = try SmallFilesystem(in: folder, "small", mebibytes: 8)
    try disk.fill()
    let result = try fixture.shell(
      "ploopd image create '\(disk.path)/a.img' --size 1M", check: false)
    #expect(result.status == 1)
    #expect(result.output.contains("free some space"), "\(result.output)")
    #expect(try fixture.status("test -e '\(disk.path)/a.img'") == 1)
  }

  @Test("A create of an image that may not be so long removes what it had made")
  func tooLong() throws {
    let result = try fixture.shell(
      "(trap '' XFSZ; ulimit -f 16; ploopd image create a.img --size 1M)", check: false)
    #expect(result.status == 1)
    #expect(result.output.contains("ulimit -f"), "\(result.output)")
    #expect(try fixture.status("test -e a.img") == 1)
  }

  @Test("Info says of an image what qemu-img says of it")
  func info() throws {
    try fixture.shell(
      """
      qemu-img create -q -f parallels -o cluster_size=64k a.img 4M
      for at in 576 0 128 64 640 1024; do qemu-io -f parallels -c "write ${at}k 64k" a.img; done
      """)
    let foreign = try fixture.json("qemu-img check -f parallels --output=json a.img")
    let levels = try fixture.json("ploopd image info --json a.img")["levels"] as? [[String: Any]]
    let own = try #require(levels?.first)
    #expect(own["mapped_clusters"] as? Int == foreign["allocated-clusters"] as? Int)
    #expect(own["scattered_clusters"] as? Int == foreign["fragmented-clusters"] as? Int)
    #expect(own["clusters"] as? Int == foreign["total-clusters"] as? Int)
    #expect(own["file_bytes"] as? Int == foreign["image-end-offset"] as? Int)
    #expect(own["cluster_bytes"] as? Int == 64 << 10)
    #expect(own["in_use"] as? Bool == false)
    let text = try fixture.shell("ploopd image info a.img").output
    #expect(text.contains("disk: 4 MiB (4194304 bytes), 64 clusters"), "\(text)")
  }

  @Test("Info lists a chain oldest first, a raw base included, and follows links")
  func chain() throws {
    try fixture.makeImage("top.img")
    try fixture.shell("truncate -s 1M base.raw && ln -s top.img link.img")
    let info = try fixture.json("ploopd image info --json --raw-base base.raw link.img")
    let levels = try #require(info["levels"] as? [[String: Any]])
    #expect(levels.map { $0["format"] as? String } == ["raw", "ploop"])
    #expect(levels.map { $0["file"] as? String } == ["base.raw", "link.img"])
  }

  @Test("Images that are no chain are shown, and then it is said why, with status 1")
  func noChain() throws {
    try fixture.makeVersion1("base.img")
    try fixture.makeImage("top.img")
    let result = try fixture.shell("ploopd image info --json base.img top.img", check: false)
    #expect(result.status == 1)
    let lines = result.output.split(separator: "\n")
    #expect(lines.contains { $0.hasPrefix("{\"levels\":[") }, "\(result.output)")
    #expect(
      lines.contains(
        "ploopd: base.img: version 1 below a delta of version 2; name the images of one disk, oldest first"
      ), "\(result.output)")
  }

  @Test(
    "What is no image, or is not there, is said in one line and status 1",
    arguments: ["info", "check", "map", "fill"])
  func noImage(command: String) throws {
    try fixture.shell("seq 1000 > text.img")
    let missing = try fixture.shell("ploopd image \(command) none.img", check: false)
    #expect(missing.status == 1)
    #expect(missing.output == "ploopd: none.img: cannot open: No such file or directory\n")
    let text = try fixture.shell("ploopd image \(command) text.img", check: false)
    #expect(text.status == 1)
    #expect(text.output.hasPrefix("ploopd: text.img: "), "\(text.output)")
    #expect(try fixture.status("ploopd image \(command)") == 64)
  }
}
