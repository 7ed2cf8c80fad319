import Foundation
import PloopIO
import TestSupport
import Testing

@Suite("Deltas of a served disk that other programs write")
struct ForeignDeltaTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
  }

  /// What another program does to images: `forward SOURCE RECEIVER`, `move FILE COUNT`, which says what
  /// it has moved as a request's body, or `spoil FILE PLACE...`.
  private static let tool = """
    import json, os, struct, sys
    class Image:
      def __init__(self, path):
        self.file = open(path, "r+b")
        head = self.file.read(64)
        self.cluster = struct.unpack_from("<I", head, 28)[0] * 512
        count = struct.unpack_from("<I", head, 32)[0]
        self.index = list(struct.unpack("<%dI" % count, self.file.read(4 * count)))
      def get(self, place):
        self.file.seek(place * self.cluster)
        return self.file.read(self.cluster)
      def put(self, place, content):
        self.file.seek(place * self.cluster)
        self.file.write(content)
      def append(self, content):
        place = (os.fstat(self.file.fileno()).st_size + self.cluster - 1) // self.cluster
        self.put(place, content.ljust(self.cluster, b"\\0"))
        self.file.flush()
        return place
      def sync(self):
        self.file.flush()
        os.fsync(self.file.fileno())
      def finish(self):
        self.sync()
        self.file.seek(64)
        self.file.write(struct.pack("<%dI" % len(self.index), *self.index))
        self.sync()
    def forward(source, receiver):
      below, above = Image(source), Image(receiver)
      for cluster, place in enumerate(below.index):
        if place and not above.index[cluster]: above.index[cluster] = above.append(below.get(place))
      above.finish()
    def move(path, count):
      image, moved, old = Image(path), [], []
      for cluster, place in [(c, p) for c, p in enumerate(image.index) if p][:int(count)]:
        image.index[cluster] = image.append(image.get(place))
        moved.append({"cluster": cluster, "to": image.index[cluster]})
        old.append(str(place))
      image.finish()
      print(json.dumps({"index": moved}) + " " + " ".join(old))
    def spoil(path, *places):
      image = Image(path)
      for place in places: image.put(int(place), b"\\xdd" * image.cluster)
      image.sync()
    {"forward": forward, "move": move, "spoil": spoil}[sys.argv[1]](*sys.argv[2:])
    """

  private func tool(_ arguments: String...) throws -> String {
    try Tool.python(Self.tool, arguments).output.trimmingCharacters(in: .whitespacesAndNewlines)
  }

  private func write(_ pattern: Int, _ place: String) throws {
    try Tool.shell(
      "qemu-io -f raw -c 'write -P \(pattern) \(place)' -c flush '\(service.uri("vm"))'")
  }

  private func save(_ name: String) throws {
    try Tool.shell(
      "rm -f '\(folder.path)/\(name)'; nbdcopy '\(service.uri("vm"))' '\(folder.path)/\(name)'")
  }

  private func expectContent(_ note: String) throws {
    try save("now")
    try expectSameBytes("\(folder.path)/now", "\(folder.path)/wanted", note)
  }

  private func notify(
    _ level: String, _ direction: String, _ headers: [String] = []
  ) throws -> RunningService.Reply {
    try service.post(
      "/v1/devices/vm/deltas/\(level)/notify-merged", "{\"direction\":\"\(direction)\"}", headers)
  }

  private func paths() throws -> [String] {
    let deltas = try service.get("/v1/devices/vm").json["deltas"] as? [[String: Any]] ?? []
    return deltas.compactMap { $0["path"] as? String }
  }

  @Test("a list of QEMU's images: merged by OpenVZ's program, moved, copied, and killed in between")
  func list() throws {
    let images = service.images
    for (level, name) in ["d0", "d1", "d2", "d3", "d4", "top"].enumerated() {
      try QEMU.create("\(images)/\(name)", "size=16M,cluster_size=65536")
      let commands = [(level, 3), (level * 2, 1), (11 - level, 2)].map {
        "-c 'write -P \(level * 10 + $0.1) \($0.0)M \($0.1)M'"
      }
      try Tool.shell("qemu-io -f parallels \(commands.joined(separator: " ")) '\(images)/\(name)'")
    }
    #expect(try service.attach("vm", ["d0", "d1", "d2", "d3", "d4", "top"]).status == 201)
    try write(99, "1M 100k")
    try save("wanted")

    // QEMU's program sees our lock on a lower delta; OpenVZ's looks at none.
    let refused = try Tool.shell(
      "qemu-io -f parallels -c 'write 0 64k' '\(images)/d1'", check: false)
    #expect(refused.status != 0 && refused.output.contains("lock"), "\(refused.output)")
    for level in ["1", "2", "3"] {
      #expect(try notify(level, "backward").code == "index-mismatch")
    }
    try OpenVZ.merge(["\(images)/d2", "\(images)/d1"])
    try expectContent("merged, and not said so")
    let key = ["Idempotency-Key: merged"]
    let merged = try notify("2", "backward", key)
    #expect(merged.status == 200, "\(merged.text)")
    #expect((merged.json["deltas"] as? [Any])?.count == 5)
    #expect(try notify("2", "backward", key).text == merged.text)
    #expect(try paths() == ["d0", "d1", "d3", "d4", "top"].map { "main:\($0)" })
    try Tool.shell("rm '\(images)/d2'")
    try expectContent("merged backward")
    service.kill()
    try service.start()
    try expectContent("merged backward, after a kill")

    _ = try tool("forward", "\(images)/d1", "\(images)/d3")
    #expect(try notify("1", "forward").status == 200)
    try Tool.shell("rm '\(images)/d1'")
    try expectContent("merged forward")

    for level in 0...2 {
      let path = "\(images)/\(["d0", "d3", "d4"][level])"
      let said = try tool("move", path, "30")
      let end = try #require(said.firstIndex(of: "}").flatMap { _ in said.lastIndex(of: "}") })
      let reply = try service.patch("/v1/devices/vm/deltas/\(level)", String(said[...end]))
      let applied = try #require(reply.json["applied"] as? Int, "\(reply.text)")
      #expect(reply.json["skipped"] as? Int == 30 - applied)
      let places = said[said.index(after: end)...].split(separator: " ").map(String.init)
      try Tool.python(Self.tool, ["spoil", path] + places)
      try expectContent("moved in level \(level)")
      #expect(
        try service.patch("/v1/devices/vm/deltas/\(level)", String(said[...end])).json["applied"]
          as? Int == applied)
    }

    try Tool.shell("mkdir '\(images)/fast'; cp '\(images)/d3' '\(images)/fast/d3'")
    let copied = try service.patch("/v1/devices/vm/deltas/1", "{\"path\":\"fast/d3\"}")
    #expect(copied.status == 200, "\(copied.text)")
    #expect(copied.json["applied"] is NSNull)
    #expect((copied.json["delta"] as? [String: Any])?["path"] as? String == "main:fast/d3")
    try Tool.shell("rm '\(images)/d3'")
    try expectContent("copied")
    let events = try service.get("/v1/events?types=delta.*&device=vm")
    #expect((events.json["items"] as? [Any])?.count == 2 + 6 + 1, "\(events.text)")
    service.kill()
    try service.start()
    try expectContent("after a kill")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    let files = ["d0", "fast/d3", "d4", "top"].map { "\(images)/\($0)" }
    try Tool.shell(
      "qemu-img convert -O raw '\(QEMU.stack(files, rawBase: false))' '\(folder.path)/theirs'")
    try expectSameBytes("\(folder.path)/theirs", "\(folder.path)/wanted")
    for file in files { try QEMU.expectSound(file) }
  }

  @Test("what is said wrongly has its code, and changes nothing (D4, D5)")
  func refusals() throws {
    let images = service.images
    for name in ["d0", "d1", "d2", "top"] {
      try QEMU.create("\(images)/\(name)", "size=16M,cluster_size=65536")
      try Tool.shell("qemu-io -f parallels -c 'write -P 3 1M 1M' '\(images)/\(name)'")
    }
    #expect(try service.attach("vm", ["d0", "d1", "d2", "top"]).status == 201)
    try save("wanted")
    let before = try service.get("/v1/devices/vm").text
    func expect(_ reply: RunningService.Reply, _ status: Int, _ code: String) throws {
      #expect(reply.status == status && reply.code == code, "\(reply.text)")
    }
    try expect(try notify("2", "forward"), 422, "merge-direction-invalid")
    try expect(try notify("0", "backward"), 422, "merge-direction-invalid")
    for level in ["3", "top"] { try expect(try notify(level, "forward"), 422, "delta-is-top") }
    for level in ["4", "256", "4294967296", "18446744073709551616", "-1", "+1", "01", "x"] {
      try expect(try notify(level, "backward"), 404, "delta-not-found")
      try expect(
        try service.patch("/v1/devices/vm/deltas/\(level)", "{\"index\":[]}"), 404,
        "delta-not-found")
    }
    try expect(try notify("1", "auto"), 400, "invalid-value")
    func update(_ pairs: String, _ status: Int, _ code: String) throws {
      try expect(
        try service.patch("/v1/devices/vm/deltas/1", "{\"index\":[\(pairs)]}"), status, code)
    }
    try update(#"{"cluster":16,"to":1},{"cluster":256,"to":2}"#, 422, "cluster-out-of-range")
    try update(#"{"cluster":9007199254740991,"to":2}"#, 422, "cluster-out-of-range")
    try update(#"{"cluster":16,"to":4294967297}"#, 422, "cluster-out-of-range")
    try update(#"{"cluster":16,"to":0}"#, 422, "cluster-out-of-range")
    try update(#"{"cluster":0,"to":1}"#, 422, "cluster-not-mapped")
    try update(#"{"cluster":16,"to":2}"#, 409, "index-mismatch")
    for wrong in [
      #"{"cluster":-1,"to":2}"#, #"{"cluster":1.5,"to":2}"#, #"{"cluster":"1","to":2}"#,
      #"{"cluster":18446744073709551616,"to":2}"#, #"{"cluster":16}"#,
      #"{"cluster":16,"to":1},{"cluster":16,"to":2}"#,
      #"{"cluster":16,"to":1},{"cluster":17,"to":1}"#,
    ] { try update(wrong, 400, "invalid-value") }
    try update(#"{"cluster":16,"to":1,"more":1}"#, 400, "unknown-field")
    func path(_ body: String, _ status: Int, _ code: String) throws {
      try expect(try service.patch("/v1/devices/vm/deltas/1", body), status, code)
    }
    try path(#"{"path":"d1","index":[]}"#, 400, "invalid-value")
    try path("{}", 400, "invalid-value")
    try path(#"{"path":"none"}"#, 404, "image-not-found")
    try path(#"{"path":"d0"}"#, 422, "value-impossible")
    try Tool.shell(
      """
      cd '\(images)'; cp d1 other; printf x | dd of=other bs=1 seek=70000 conv=notrunc status=none
      """)
    try path(#"{"path":"other"}"#, 422, "image-not-identical")
    let stale = try service.call(
      "PATCH", "/v1/devices/vm/deltas/1", #"{"index":[]}"#, ["If-Match: \"99\""])
    try expect(stale, 412, "precondition-failed")
    #expect(try service.get("/v1/devices/vm").text == before)
    try expectContent("after all refusals")
    // The same file again is no change.
    #expect(try service.patch("/v1/devices/vm/deltas/1", #"{"path":"d1"}"#).status == 200)
    #expect(try service.get("/v1/devices/vm").text == before)
  }

  @Test("the descriptor of a disk follows, or has been changed by the other program already")
  func descriptor() throws {
    #expect(try service.create("vm", sizeBytes: 16 << 20, clusterBytes: 1 << 16).status == 201)
    var snapshots: [String] = []
    for round in 1...4 {
      try write(round, "\(round)M 4M")
      let reply = try service.post("/v1/devices/vm/snapshots", "{}")
      snapshots.append(try #require(reply.json["uuid"] as? String, "\(reply.text)"))
      try save("state\(round)")
    }
    try write(5, "12M 2M")
    try save("wanted")
    func file(_ level: Int) throws -> String {
      try paths()[level].replacing("main:", with: "\(service.images)/")
    }
    func path(_ number: Int) -> String {
      "/v1/devices/vm/snapshots/\(snapshots[number].filter { !"{}".contains($0) })"
    }
    // One that is protected, or read, stays.
    #expect(try service.patch(path(1), "{\"protected\":true}").status == 200)
    _ = try tool("forward", try file(1), try file(2))
    #expect(try notify("1", "forward").code == "snapshot-protected")
    #expect(try service.patch(path(1), "{\"protected\":false}").status == 200)
    #expect(
      try service.post(
        "/v1/exports", "{\"name\":\"old\",\"device\":\"vm\",\"snapshot\":\"\(snapshots[2])\"}"
      ).status == 201)
    #expect(try notify("1", "forward").code == "export-in-use")
    #expect(
      try service.patch("/v1/devices/vm/deltas/1", "{\"index\":[]}").code == "export-in-use")
    #expect(try service.delete("/v1/exports/old").status == 204)
    let gone = try file(1)
    let forward = try notify("1", "forward")
    #expect(forward.status == 200, "\(forward.text)")
    try Tool.shell("rm '\(gone)'")
    try expectContent("forward")
    #expect(try service.get(path(1)).code == "snapshot-not-found")

    // The other program takes the merged one out of the descriptor itself.
    let above = try file(1)
    _ = try tool("forward", try file(0), above)
    let descriptor = "\(service.images)/vm/DiskDescriptor.xml"
    try Tool.python(
      """
      import re, sys
      path, gone = sys.argv[1:]
      text = open(path).read()
      for kind in ("Image", "Shot"):
        text = re.sub("<%s>(?:(?!</%s>).)*<GUID>%s</GUID>.*?</%s>" % (kind, kind, re.escape(gone), kind),
                      "", text, flags=re.S)
      text = text.replace("<ParentGUID>%s<" % gone, "<ParentGUID>{00000000-0000-0000-0000-000000000000}<")
      open(path, "w").write(text)
      """, [descriptor, snapshots[0]])
    let oldest = try file(0)
    let described = try notify("0", "forward", ["Idempotency-Key: described"])
    #expect(described.status == 200, "\(described.text)")
    #expect((described.json["deltas"] as? [Any])?.count == 3)
    try Tool.shell("rm '\(oldest)'")
    try expectContent("described")

    // A copy of a snapshot's file; the descriptor names it from then on.
    try Tool.shell("cp '\(above)' '\(service.images)/vm/copy.hds'")
    let copied = try service.patch("/v1/devices/vm/deltas/0", "{\"path\":\"vm/copy.hds\"}")
    #expect(copied.status == 200, "\(copied.text)")
    try Tool.shell("rm '\(above)'")
    service.kill()
    try service.start()
    try expectContent("after a kill")
    #expect(try paths()[0] == "main:vm/copy.hds")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    for number in 2...3 {
      let reply = try service.post(
        "/v1/devices",
        "{\"id\":\"vm\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"at\":\"\(snapshots[number])\",\"export\":{\"name\":\"vm\"}}"
      )
      #expect(reply.status == 201, "\(reply.text)")
      try save("now")
      try expectSameBytes("\(folder.path)/now", "\(folder.path)/state\(number + 1)")
      #expect(try service.delete("/v1/devices/vm").status == 204)
    }
    let listed = try OpenVZ.run(
      "cd '\(service.images)/vm' && ploop check DiskDescriptor.xml && ploop snapshot-list -H DiskDescriptor.xml"
    )
    for number in 2...3 { #expect(listed.contains(snapshots[number])) }
    #expect(!listed.contains(snapshots[0]) && !listed.contains(snapshots[1]))
  }
}
