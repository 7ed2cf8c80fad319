internal import ArgumentParser
internal import PloopJSON
internal import PloopTerminal

/// Limits of a disk's NBD clients, all of them together; 0 is none.
struct RateOptions: ParsableArguments {
  @Option(help: ArgumentHelp("Bytes that are read each second.", valueName: "size"))
  var readBps: ByteSize?
  @Option(help: ArgumentHelp("Bytes that are written each second.", valueName: "size"))
  var writeBps: ByteSize?
  @Option(help: ArgumentHelp("Requests that read each second.", valueName: "count"))
  var readIops: UInt64?
  @Option(help: ArgumentHelp("Requests that change something each second.", valueName: "count"))
  var writeIops: UInt64?
  @Option(
    help: ArgumentHelp(
      "What these come to in this time may be had at once after a rest.", valueName: "seconds"))
  var burst: UInt64?
  @Flag(help: "As fast as the disk is.") var unlimited = false

  /// Those that are given; the others stay.
  var json: JSON? {
    if unlimited { return .null }
    let rates = JSON.members([
      "read_bps": readBps?.json, "write_bps": writeBps?.json, "read_iops": readIops.map(JSON.count),
      "write_iops": writeIops.map(JSON.count), "burst_seconds": burst.map(JSON.count),
    ])
    return rates == .object([]) ? nil : rates
  }

  func validate() throws {
    guard unlimited, readBps ?? writeBps != nil || readIops ?? writeIops ?? burst != nil else {
      return
    }
    throw ValidationError("--unlimited goes with no limit")
  }
}
