internal import PloopIO
internal import TestSupport

/// How long it takes to copy a disk, and to give back what is zero in one.
extension Suite {
  private enum Copier: String, CaseIterable {
    case ploopd = "clone"
    case copy = "cp"
    case qemu = "qemu-img convert"
  }

  /// The working set, durably. A clone is attached at its end; `cp` copies the file.
  func cloneRow() throws {
    try measure(
      "clone", "full clone of a disk, durably", unit: "MiB/s",
      [
        Report.Goal(of: Copier.ploopd.rawValue, against: Copier.copy.rawValue, ratio: 1 / 1.3),
        Report.Goal(of: Copier.ploopd.rawValue, against: Copier.qemu.rawValue, ratio: 1),
      ], of: Copier.allCases, name: \.rawValue
    ) { copier, round in
      let contender = try filled(.ploopd)
      guard let file = contender.files.last else { throw BenchFailure("no file") }
      // One that is served is not copied by others.
      if copier != .ploopd { try contender.stop() }
      let copy = try servers.path(.ploopd, "copy")
      try servers.settle()
      let seconds: Double
      switch copier {
      case .ploopd: seconds = try clone(contender, as: "clone\(round)")
      case .copy:
        seconds = try timed {
          try Tool.shell("cp --reflink=never '\(file)' '\(copy)' && sync '\(copy)'", seconds: 300)
        }
      case .qemu:
        seconds = try timed {
          try Tool.shell(
            "qemu-img convert -f parallels -O parallels -o cluster_size=1M '\(file)' '\(copy)' && sync '\(copy)'",
            seconds: 300)
        }
      }
      if copier == .ploopd { try finishChain(contender) }
      try servers.remove(copy)
      try servers.remove(file)
      return Report.Sample(value: Double(settings.spanBytes >> 20) / seconds)
    }
  }

  private func clone(_ contender: Contender, as id: String) throws -> Double {
    let seconds = try timed {
      try servers.run(
        "{\"type\":\"clone\",\"device\":\"\(contender.address.export)\",\"params\":{\"to\":{\"id\":\"\(id)\",\"directory\":\"\(id)\"}}}"
      )
    }
    try servers.removeDisk(id)
    return seconds
  }

  private enum Compacter: String, CaseIterable {
    case zeroes = "compact of zeroes, while it is served"
    case ploopd = "compact, while it is served"
    case holes = "fallocate --dig-holes"
    case qemu = "qemu-img convert"
  }

  /// A disk of which guests have written half with zeroes: without it, in a file with holes as `fallocate` leaves
  /// it, or in a shorter one as `qemu-img` makes it.
  func compactRow() throws {
    try measure(
      "compact", "giving back \(settings.spanBytes >> 21) MiB that are zero, durably", unit: "ms",
      [
        Report.Goal(
          of: Compacter.zeroes.rawValue, against: Compacter.holes.rawValue, ratio: 1.3, atMost: true
        ),
        Report.Goal(
          of: Compacter.ploopd.rawValue, against: Compacter.qemu.rawValue, ratio: 1, atMost: true),
      ], of: Compacter.allCases, name: \.rawValue
    ) { compacter, _ in
      let contender = try filled(.ploopd)
      try fill(contender, bytes: settings.spanBytes / 2, stamp: 0)
      guard let file = contender.files.last else { throw BenchFailure("no file") }
      let isServed = compacter == .ploopd || compacter == .zeroes
      if !isServed { try contender.stop() }
      try servers.settle()
      let before = try blocks(of: file)
      var after = file
      let seconds = try timed {
        switch compacter {
        case .zeroes:
          try servers.run(
            "{\"type\":\"compact\",\"device\":\"\(contender.address.export)\",\"params\":{\"what\":[\"zeroes\"]}}"
          )
        case .ploopd:
          try servers.run("{\"type\":\"compact\",\"device\":\"\(contender.address.export)\"}")
        case .holes: try Tool.shell("fallocate -d '\(file)' && sync '\(file)'", seconds: 300)
        case .qemu:
          after += ".new"
          try Tool.shell(
            "qemu-img convert -f parallels -O parallels -o cluster_size=1M '\(file)' '\(after)' && sync '\(after)'",
            seconds: 300)
        }
      }
      guard try before - blocks(of: after) > settings.spanBytes * 4 / 10 else {
        throw BenchFailure("\(compacter.rawValue) has given nothing back")
      }
      if isServed {
        try verify(contender, accepted: 0...stamp)
        try finishChain(contender)
      }
      try servers.remove(after)
      try servers.remove(file)
      return Report.Sample(value: seconds * 1e3)
    }
  }

  /// Bytes that a file takes.
  private func blocks(of file: String) throws -> Int {
    let text = try Tool.shell("sync '\(file)' && stat -c %b '\(file)'").output.trimmingNewline
    guard let count = Int(text) else { throw BenchFailure("stat says \(text)") }
    return count * 512
  }

  private func timed(_ body: () throws -> Void) throws -> Double {
    FreeMemory.warm(bytes: settings.spanBytes + settings.spanBytes / 4)
    let start = monotonicNanoseconds()
    try body()
    return Double(monotonicNanoseconds() - start) / 1e9
  }
}
