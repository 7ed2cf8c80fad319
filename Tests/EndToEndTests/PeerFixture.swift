import TestSupport

/// A service with a disk `vm`, and another one to which the disk is moved. Their sockets are all that they share.
struct PeerFixture {
  let here: CopyFixture
  let there: RunningService
  var service: RunningService { here.service }
  var folder: String { here.folder.path }

  /// What the other service has its disks on, if it is a file system of its own.
  let room: SmallFilesystem?

  /// - Parameter mebibytes: that are free where the other service has its disks.
  init(mebibytes: Int? = nil) throws {
    let here = try CopyFixture()
    self.here = here
    room = try mebibytes.map {
      try SmallFilesystem(in: here.folder, "images/peer/images", mebibytes: $0)
    }
    there = try RunningService(in: "\(here.service.images)/peer")
  }

  /// - Parameter members: of `ploopd`, beside its addresses and the folder.
  func migrate(
    _ members: String = ",\"export\":\"vm\"", params: String = ",\"max_downtime_ms\":60000",
    more: String = ""
  ) throws -> String {
    try here.job(
      "{\"type\":\"migrate\",\"device\":\"vm\",\"params\":{\"to\":{\"ploopd\":{\"api\":\"http+unix:///?socket=main:peer/api.sock\",\"nbd\":\"nbd+unix:///?socket=main:peer/nbd.sock\",\"directory\":\"vm\"\(members)}}\(params)}\(more)}"
    )
  }

  /// What the other service's disk holds, as a raw file.
  func saveThere(_ name: String) throws -> String {
    let path = "\(folder)/\(name)"
    try Tool.shell("rm -f '\(path)'; nbdcopy '\(there.uri("vm"))' '\(path)'")
    return path
  }

  func namesThere(in folder: String) throws -> [String] {
    try Tool.shell("ls -A '\(there.images)/\(folder)' 2> /dev/null || true").output
      .split(separator: "\n").map(String.init)
  }
}
