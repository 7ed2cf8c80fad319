import TestSupport
import Testing

@Suite("ploopd image fill")
struct ImageCommandFillTests {
  let fixture: ImageCommandFixture

  init() throws { fixture = try ImageCommandFixture() }

  /// Where SEEK_HOLE finds the first hole, and the file's size.
  private func firstHole(_ name: String) throws -> (hole: Int, size: Int) {
    let numbers = try fixture.shell(
      "python3 -c 'import os; f = os.open(\"\(name)\", os.O_RDONLY); "
        + "print(os.lseek(f, 0, os.SEEK_HOLE), os.fstat(f).st_size)'"
    ).output.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
    try #require(numbers.count == 2)
    return (numbers[0], numbers[1])
  }

  /// A clean image in a file of 2 GiB of which only header and two clusters take space.
  private func makeSparse(_ name: String) throws {
    try fixture.shell("ploopd image create \(name) --size 64M && truncate -s 2001M \(name)")
    for (cluster, place) in [(0, 2000), (7, 1000)] {
      try fixture.patch(name, entry: cluster, to: UInt32(place))
      try fixture.patch(name, at: place << 20, [UInt8](repeating: 0xA5, count: 4096))
    }
  }

  @Test("A filled image has no hole and no reserved space, the same bytes, and pleases ploop check")
  func fill() throws {
    try fixture.makeImage("a.img")
    try fixture.shell("cp --sparse=always a.img sparse.img")
    for name in ["a.img", "sparse.img"] {
      let before = try fixture.sum(name)
      try fixture.shell("ploopd image fill \(name)")
      #expect(try fixture.sum(name) == before)
      let found = try firstHole(name)
      #expect(found.hole == found.size)
      let extents = try fixture.shell("filefrag -v \(name)").output
      #expect(!extents.contains("unwritten"), "\(extents)")
      try fixture.shell("ploop check -f -c -r \(name) && qemu-img check -f parallels \(name)")
    }
    #expect(
      try fixture.shell("ploopd image fill a.img").output == "a.img: filled 0 bytes of holes\n")
  }

  @Test("Fill really finds something to do in a sparse image")
  func sparseBefore() throws {
    try makeSparse("a.img")
    let found = try firstHole("a.img")
    #expect(found.hole < found.size)
    #expect(try fixture.status("ploopd image check a.img") == 0)
  }

  @Test("A fill that is killed leaves the image as it was; the next one ends it")
  func killed() throws {
    try makeSparse("a.img")
    let before = try fixture.content("a.img")
    let killed = try fixture.shell(
      """
      '\(RunningService.program)' image fill --json --progress a.img 2> progress & fill=$!
      until grep -q '"done_bytes":[1-9]' progress; do kill -0 $fill || exit 99; done
      kill -9 $fill; wait $fill
      """, check: false)
    #expect(killed.status == 137, "killed in the middle: \(killed.output)")
    #expect(try fixture.content("a.img") == before)
    try fixture.shell("ploopd image check a.img && qemu-img check -f parallels a.img")
    let left = try fixture.json("ploopd image fill --json a.img")["filled_bytes"] as? Int
    #expect((1..<(2001 << 20)).contains(try #require(left)))
    #expect(try fixture.content("a.img") == before)
    let found = try firstHole("a.img")
    #expect(found.hole == found.size)
  }

  @Test("A fill of an image that may not be so long leaves it valid, with its content")
  func tooLong() throws {
    try makeSparse("a.img")
    let before = try fixture.content("a.img")
    let result = try fixture.shell(
      "(trap '' XFSZ; ulimit -f 65536; ploopd image fill a.img)", check: false)
    #expect(result.status == 1)
    #expect(result.output.contains("ulimit -f"), "\(result.output)")
    #expect(try fixture.content("a.img") == before)
    try fixture.shell("ploopd image check a.img")
  }

  @Test("An image that was not closed is refused and left as it is")
  func unclean() throws {
    try fixture.makeImage("a.img")
    try fixture.patch("a.img", at: 44, Array("Ynot".utf8))
    let before = try fixture.shell("filefrag -v a.img && sha256sum a.img").output
    let result = try fixture.shell("ploopd image fill a.img", check: false)
    #expect(result.status == 1)
    #expect(result.output.contains("'ploopd image check --repair'"), "\(result.output)")
    #expect(try fixture.shell("filefrag -v a.img && sha256sum a.img").output == before)
  }

  @Test("Progress is shown when asked for: a bar for people, lines for machines, on stderr")
  func progress() throws {
    try fixture.makeImage("a.img")
    try fixture.shell("cp a.img b.img && ploopd image fill --progress a.img 2> bar > out")
    let bar = try fixture.shell("tr '\\r' '\\n' < bar").output.split(separator: "\n")
    #expect(bar.last == "a.img [########################################] 100 %")
    try fixture.shell("cp --sparse=always a.img b.img")
    try fixture.shell("ploopd image fill --progress --json b.img 2> lines > out")
    let last = try fixture.json("tail -n 1 lines")
    #expect(last["done_bytes"] as? Int == last["total_bytes"] as? Int)
    #expect(try fixture.json("cat out")["filled_bytes"] as? Int == last["total_bytes"] as? Int)
  }
}
