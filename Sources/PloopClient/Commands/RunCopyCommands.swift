internal import ArgumentParser
internal import PloopJSON
internal import PloopTerminal

/// Jobs that copy a disk: to a target and back, to a new disk, elsewhere.
struct RunBackup: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "backup", abstract: "Copy a disk, as it is at one instant, to a target.")
  @OptionGroup var name: DeviceName
  @Option(
    help: ArgumentHelp("Where to.", valueName: "name"),
    completion: .names(of: .listTargets, by: "name"))
  var target: String
  @Option(
    help: ArgumentHelp(
      "full, or incremental: what was written since the last one; otherwise an increment where there can be one.",
      valueName: "mode"))
  var mode: String?
  @Option(help: ArgumentHelp("A snapshot instead of the disk as it is now.", valueName: "guid"))
  var snapshot: String?
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      try options.request(
        "backup", device: name.device,
        .members([
          "target": .string(target), "mode": mode.map(JSON.string),
          "snapshot": snapshot.map(JSON.string),
        ]))
    }
  }
}

struct RunRestore: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "restore", abstract: "Make a disk of a backup, or give one its content back.",
    discussion:
      "Either --as, for a new device, or --into, for a disk that no device has, is expected.")
  @Argument(help: "The target.", completion: .names(of: .listTargets, by: "name")) var target:
    String
  @Argument(help: "The backup.") var backup: String
  @OptionGroup var copy: NewCopyOptions
  @Option(
    help: ArgumentHelp("The DiskDescriptor.xml of a disk; asks first.", valueName: "path"))
  var into: String?
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      guard (into == nil) == (copy.device != nil) else {
        throw ValidationError("either --as or --into is expected")
      }
      return try options.request(
        "restore",
        .members([
          "target": .string(target), "backup": .string(backup), "to": copy.json,
          "into": into.map(JSON.string),
        ]))
    }
  }
  var question: String? { into.map { "Give \($0) the content of backup \(backup)?" } }
}

/// A device that a job makes.
struct NewCopyOptions: ParsableArguments {
  @Option(
    name: .customLong("as"), help: ArgumentHelp("What the new device is called.", valueName: "name")
  )
  var device: String?
  @Option(
    help: ArgumentHelp("The folder of its files; otherwise one of its name.", valueName: "path"))
  var directory: String?
  @Option(help: ArgumentHelp("Open a door of this name to it.", valueName: "name"))
  var export: String?
  @OptionGroup(title: "Who may use that door") var access: AccessOptions

  /// nil where it has no name.
  var json: JSON? {
    device.map {
      .members([
        "id": .string($0), "directory": .string(directory ?? $0), "export": export.map(JSON.string),
        "access": access.json,
      ])
    }
  }
}

struct RunVerify: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify", abstract: "Read what is stored on a target again, and check it.")
  @Argument(help: "The target.", completion: .names(of: .listTargets, by: "name")) var target:
    String
  @Option(help: ArgumentHelp("Only this point, and what it builds on.", valueName: "id"))
  var backup: String?
  @Option(help: ArgumentHelp("Only those of this device.", valueName: "name")) var device: String?
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      try options.request(
        "verify",
        .members([
          "target": .string(target), "backup": backup.map(JSON.string),
          "device": device.map(JSON.string),
        ]))
    }
  }
}

struct RunPrune: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "prune", abstract: "Remove snapshots, or backups, that no rule keeps.",
    discussion: """
      Snapshots of --device; with --target the points there, of that device or of all. Each rule keeps the newest of \
      each of so many hours, days and so on.
      """)
  @Option(
    help: ArgumentHelp("The device.", valueName: "name"), completion: .names(of: .listDevices))
  var device: String?
  @Option(
    help: ArgumentHelp("The target.", valueName: "name"),
    completion: .names(of: .listTargets, by: "name"))
  var target: String?
  @Option(help: ArgumentHelp("Keep the newest.", valueName: "count")) var keepLast: UInt64?
  @Option(help: ArgumentHelp("Keep one of each hour.", valueName: "count")) var hourly: UInt64?
  @Option(help: ArgumentHelp("Keep one of each day.", valueName: "count")) var daily: UInt64?
  @Option(help: ArgumentHelp("Keep one of each week.", valueName: "count")) var weekly: UInt64?
  @Option(help: ArgumentHelp("Keep one of each month.", valueName: "count")) var monthly: UInt64?
  @Option(help: ArgumentHelp("Keep one of each year.", valueName: "count")) var yearly: UInt64?
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      try options.request(
        "prune", device: target == nil ? device : nil,
        .members([
          "target": target.map(JSON.string),
          "device": target == nil ? nil : device.map(JSON.string),
          "keep_last": keepLast.map(JSON.count), "hourly": hourly.map(JSON.count),
          "daily": daily.map(JSON.count), "weekly": weekly.map(JSON.count),
          "monthly": monthly.map(JSON.count), "yearly": yearly.map(JSON.count),
        ]))
    }
  }
  var question: String? { "Remove what the plan does not keep?" }
}

/// What is copied, where that is no device.
struct CopyOrigin: ParsableArguments {
  @Option(help: ArgumentHelp("A file: an image, or a descriptor.", valueName: "path"))
  var image: String?
  @Option(
    help: ArgumentHelp(
      "Its format, where it is no ploop image: raw or qcow2.", valueName: "format"))
  var format: String?
  @Option(help: ArgumentHelp("What an NBD server exports.", valueName: "uri")) var nbd: String?
  @Option(
    help: ArgumentHelp("The clusters of what has none; otherwise 1M.", valueName: "size"))
  var clusterSize: ByteSize?
  @Option(help: ArgumentHelp("A target that has a backup.", valueName: "name")) var target: String?
  @Option(help: ArgumentHelp("With --target: the backup.", valueName: "id")) var backup: String?
  @Option(help: ArgumentHelp("A snapshot, of a device or of a descriptor.", valueName: "guid"))
  var snapshot: String?

  /// - Parameter isDevice: whether a device is copied, of which a snapshot is a parameter by itself.
  func members(isDevice: Bool) throws -> JSON? {
    let from = JSON.members([
      "image": image.map(JSON.string), "format": format.map(JSON.string),
      "nbd": nbd.map(JSON.string), "cluster_size": clusterSize?.json,
      "target": target.map(JSON.string), "backup": backup.map(JSON.string),
      "snapshot": isDevice ? nil : snapshot.map(JSON.string),
    ])
    guard (from == .object([])) == isDevice else {
      throw ValidationError("either --device or one of --image, --nbd and --target is expected")
    }
    return isDevice ? nil : from
  }
}

struct RunClone: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "clone", abstract: "Make a new disk of one, of a snapshot, of a backup or a file.")
  @Option(
    help: ArgumentHelp("The device.", valueName: "name"), completion: .names(of: .listDevices))
  var device: String?
  @OptionGroup var origin: CopyOrigin
  @OptionGroup var copy: NewCopyOptions
  @Flag(help: "Copy nothing: lie over a snapshot's files.") var linked = false
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      guard copy.device != nil else { throw ValidationError("--as is expected") }
      return try options.request(
        "clone", device: device,
        .members([
          "from": try origin.members(isDevice: device != nil), "to": copy.json,
          "snapshot": device == nil ? nil : origin.snapshot.map(JSON.string),
          "mode": linked ? .string("linked") : nil,
        ]))
    }
  }
}

struct RunImport: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "import", abstract: "Make a new disk of a file, or of what an NBD server exports.")
  @OptionGroup var origin: CopyOrigin
  @OptionGroup var copy: NewCopyOptions
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      guard copy.device != nil else { throw ValidationError("--as is expected") }
      return try options.request(
        "import", .members(["from": try origin.members(isDevice: false), "to": copy.json]))
    }
  }
}

struct RunExport: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "export", abstract: "Copy a disk to a file, or to what an NBD server exports.",
    discussion:
      "Either --to-image or --to-nbd is expected; the latter is written over, so it asks first.")
  @Option(
    help: ArgumentHelp("The device.", valueName: "name"), completion: .names(of: .listDevices))
  var device: String?
  @OptionGroup var origin: CopyOrigin
  @Option(help: ArgumentHelp("A new file.", valueName: "path")) var toImage: String?
  @Option(help: ArgumentHelp("Its format: raw or ploop1.", valueName: "format"))
  var toFormat: String?
  @Option(help: ArgumentHelp("An export of an NBD server.", valueName: "uri")) var toNbd: String?
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      guard (toImage == nil) != (toNbd == nil) else {
        throw ValidationError("either --to-image or --to-nbd is expected")
      }
      return try options.request(
        "export", device: device,
        .members([
          "from": try origin.members(isDevice: device != nil),
          "snapshot": device == nil ? nil : origin.snapshot.map(JSON.string),
          "to": .members([
            "image": toImage.map(JSON.string), "format": toFormat.map(JSON.string),
            "nbd": toNbd.map(JSON.string),
          ]),
        ]))
    }
  }
  var question: String? { toNbd.map { "Write over \($0)?" } }
}

struct RunMigrate: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "migrate", abstract: "Move a disk elsewhere while it is used; asks first.",
    discussion: """
      One of --to-nbd, --to-stream, or --to-api with --to-server (the addresses of another ploopd) is expected.
      """)
  @OptionGroup var name: DeviceName
  @Option(help: ArgumentHelp("An export of an NBD server.", valueName: "uri")) var toNbd: String?
  @Option(
    help: ArgumentHelp("Where somebody gives what comes to 'ploop copy -d'.", valueName: "uri"))
  var toStream: String?
  @Option(help: ArgumentHelp("The API of another ploopd.", valueName: "uri")) var toApi: String?
  @Option(help: ArgumentHelp("Its NBD server.", valueName: "uri")) var toServer: String?
  @Option(
    help: ArgumentHelp(
      "With --to-api: the folder there; otherwise one of the device's name.", valueName: "path"))
  var directory: String?
  @Option(help: ArgumentHelp("With --to-api: a door that is opened there.", valueName: "name"))
  var export: String?
  @OptionGroup(title: "Who may use that door") var access: AccessOptions
  @Option(help: ArgumentHelp("How long writers wait at most.", valueName: "ms"))
  var maxDowntime: UInt64?
  @Flag(help: "Detach the device here when it was moved, instead of leaving it suspended.")
  var detach = false
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      guard [toNbd, toStream, toApi].count(where: { $0 != nil }) == 1,
        (toApi == nil) == (toServer == nil)
      else {
        throw ValidationError(
          "one of --to-nbd, --to-stream and --to-api with --to-server is expected")
      }
      let peer = toApi.map { api in
        JSON.members([
          "api": .string(api), "nbd": toServer.map(JSON.string),
          "directory": .string(directory ?? name.device), "export": export.map(JSON.string),
          "access": access.json,
        ])
      }
      return try options.request(
        "migrate", device: name.device,
        .members([
          "to": .members([
            "nbd": toNbd.map(JSON.string), "stream": toStream.map(JSON.string), "ploopd": peer,
          ]), "max_downtime_ms": maxDowntime.map(JSON.count),
          "source": detach ? .string("detached") : nil,
        ]))
    }
  }
  var question: String? { "Move \(name.device)? Afterwards it is another server's." }
}
