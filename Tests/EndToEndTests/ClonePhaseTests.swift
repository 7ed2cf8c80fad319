import Foundation
import TestSupport
import Testing

/// Each call of a copy of a disk by which something becomes durable, with kill -9 before it.
@Suite("Copies of disks, and kill -9 before each step", .serialized)
struct ClonePhaseTests {
  enum Kind: CaseIterable {
    case full, linked, raw, image

    /// What is done to the disk's own notes is a step of a linked clone; a raw file has records elsewhere.
    var places: [String] {
      switch self {
      case .linked: ["/images/c/", "/images/vm/"]
      case .raw: ["/images/c/", "/state/copies/"]
      case .full, .image: ["/images/c/"]
      }
    }
  }

  @Test("a copy comes to its end, and nothing else is left", arguments: Kind.allCases)
  func copies(kind: Kind) throws {
    let mortal = try MortalService(places: kind.places)
    let service = mortal.service
    #expect(try service.create("vm", sizeBytes: 8 << 20, clusterBytes: 1 << 16).status == 201)
    try Tool.shell("qemu-io -f raw -c 'write -P 17 2M 1M' -c flush '\(service.uri("vm"))'")
    let made = try service.post("/v1/devices/vm/snapshots", "{}")
    let snapshot = try #require(made.json["uuid"] as? String, "\(made.text)")
    let raw = "\(mortal.folder.path)/raw"
    try Tool.shell("nbdcopy '\(service.uri("vm"))' '\(raw)'")
    try Tool.shell("qemu-io -f raw -c 'write -P 18 2M 2M' -c flush '\(service.uri("vm"))'")
    try mortal.sweep {
      _ = try service.patch("/v1/devices/vm/snapshots/\(snapshot)", #"{"protected":false}"#)
      let (type, mode, to) =
        switch kind {
        case .full: ("clone", "full", #""id":"c","directory":"c","export":"c""#)
        case .linked: ("clone", "linked", #""id":"c","directory":"c","export":"c""#)
        case .raw: ("export", "", #""image":"c/out","format":"raw""#)
        case .image: ("export", "", #""image":"c/out","format":"ploop1""#)
        }
      let more = mode.isEmpty ? "" : "\"mode\":\"\(mode)\","
      return
        "{\"type\":\"\(type)\",\"device\":\"vm\",\"params\":{\"snapshot\":\"\(snapshot)\",\(more)\"to\":{\(to)}}}"
    } end: { id in
      while true {
        let job = try service.get("/v1/jobs/\(id)").json
        if job["finished_at"] is String { return job }
        _ = try service.get(
          "/v1/jobs/\(id)?after_revision=\(job["revision"] as? Int ?? 0)&wait=10")
      }
    } check: { _, job, note in
      #expect(job["state"] as? String == "succeeded", "\(note): \(job)")
      let names = try Tool.shell("ls -A '\(service.images)/c'").output.split(separator: "\n")
        .filter { !$0.hasSuffix(".index-backup") }
      switch kind {
      case .full, .linked:
        let output = try Tool.shell(
          "qemu-img compare -f raw -F raw '\(service.uri("c"))' '\(raw)'", check: false,
          seconds: 120
        ).output
        #expect(output.contains("identical"), "\(note): \(output)")
        let others = names.filter { !$0.hasPrefix("DiskDescriptor.xml") }
        #expect(others == ["root.hds"], "\(note): \(names)")
        if kind == .linked {
          #expect(
            try service.delete("/v1/devices/vm/snapshots/\(snapshot)").code == "snapshot-protected",
            "\(note)")
        }
        #expect(try service.delete("/v1/devices/c").status == 204)
      case .raw: try expectSameBytes("\(service.images)/c/out", raw, note)
      case .image:
        try QEMU.expectSound("\(service.images)/c/out")
        try QEMU.convertToRaw("\(service.images)/c/out", "\(raw).again")
        try expectSameBytes("\(raw).again", raw, note)
      }
      if kind == .raw || kind == .image { #expect(names == ["out"], "\(note): \(names)") }
      try Tool.shell("rm -r '\(service.images)/c'")
    }
  }
}
