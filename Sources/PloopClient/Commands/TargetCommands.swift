internal import ArgumentParser
internal import PloopJSON

struct TargetGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "targets", abstract: "Where backups are kept.",
    subcommands: [
      TargetList.self, TargetShow.self, TargetCreate.self, TargetSet.self, TargetDelete.self,
    ])
}

/// A target.
struct TargetName: ParsableArguments {
  @Argument(help: "The target.", completion: .names(of: .listTargets, by: "name")) var target:
    String
}

struct TargetList: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List the targets.")
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.listTargets, query: ["limit": "1000"]) }
  var view: View {
    .table([
      Column("TARGET", "name"), Column("TYPE", "type"), Column("PATH", "path"),
      Column("URI", "uri"), Column("SLOTS", "slots", .count),
      Column("BACKUPS", "usage.backups", .count), Column("STORED", "usage.bytes", .bytes),
      Column("CONDITIONS", "conditions", .names("reason")),
    ])
  }
}

struct TargetShow: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show a target, whether it can be used, and how much is there.")
  @OptionGroup var name: TargetName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getTarget, [name.target]) }
}

struct TargetCreate: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Name a place for backups.",
    discussion: "One of --directory, --file and --nbd is expected.")
  @Argument(help: "What it is called.") var target: String
  @Option(help: ArgumentHelp("A folder of chains; it is made.", valueName: "path"))
  var directory: String?
  @Option(help: ArgumentHelp("A file, for one full backup.", valueName: "path")) var file: String?
  @Option(
    help: ArgumentHelp("An NBD server's export, for one full backup.", valueName: "uri"))
  var nbd: String?
  @Option(help: ArgumentHelp("Of --file: raw or ploop1.", valueName: "format")) var format: String?
  @Option(
    help: ArgumentHelp(
      "Of --nbd with TLS: a folder with ca-cert.pem, and perhaps client-cert.pem and client-key.pem.",
      valueName: "path"))
  var certificates: String?
  @Flag(help: "Of --nbd with TLS: take any server.") var noVerify = false
  @Option(help: ArgumentHelp("How many jobs work with it at a time.", valueName: "count"))
  var slots: UInt64?
  @OptionGroup var limits: LimitOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      let places = [("directory", directory), ("file", file), ("nbd", nbd)].filter { $0.1 != nil }
      guard let type = places.first?.0, places.count == 1 else {
        throw ValidationError("one of --directory, --file and --nbd is expected")
      }
      let tls = JSON.members([
        "certificates": certificates.map(JSON.string), "verify": noVerify ? .bool(false) : nil,
      ])
      return Request(
        .addTarget,
        body: .members([
          "name": .string(target), "type": .string(type),
          "path": (directory ?? file).map(JSON.string), "uri": nbd.map(JSON.string),
          "format": format.map(JSON.string), "tls": tls == .object([]) ? nil : tls,
          "slots": slots.map(JSON.count), "limits": limits.json,
        ]))
    }
  }
}

struct TargetSet: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "set", abstract: "Change how much at a time, and how fast.")
  @OptionGroup var name: TargetName
  @Option(help: ArgumentHelp("How many jobs work with it at a time.", valueName: "count"))
  var slots: UInt64?
  @OptionGroup var limits: LimitOptions
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      let body = JSON.members(["slots": slots.map(JSON.count), "limits": limits.json])
      guard body != .object([]) else { throw ValidationError("what is to be changed?") }
      return Request(.changeTarget, [name.target], headers: change.headers, body: body)
    }
  }
}

struct TargetDelete: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Forget the name of a place; its files stay.")
  @OptionGroup var name: TargetName
  @Flag(help: "Though there are backups; asks first.") var keepBackups = false
  @OptionGroup var consent: Consent
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(
      .removeTarget, [name.target], query: ["backups": keepBackups ? "keep" : nil],
      headers: change.headers)
  }
  var view: View { .done("\(name.target): forgotten") }
  var question: (text: String, isAnswered: Bool)? {
    keepBackups ? ("Forget \(name.target), though backups are there?", consent.yes) : nil
  }
}

struct BackupGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backups", abstract: "What is kept on a target.",
    discussion: "'ploopctl run backup', 'run restore' and 'run verify' make and use them.",
    subcommands: [BackupList.self, BackupShow.self, BackupDelete.self])
}

struct BackupList: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List all points of a target, whole or not.")
  @OptionGroup var name: TargetName
  @Option(help: ArgumentHelp("Only those of this device.", valueName: "name")) var device: String?
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(.listBackups, [name.target], query: ["limit": "1000", "device": device])
  }
  var view: View {
    .table([
      Column("BACKUP", "id"), Column("DEVICE", "device"), Column("MODE", "mode"),
      Column("STATE", "state"), Column("INSTANT", "point_in_time", .time),
      Column("ON DISK", "disk_bytes", .bytes), Column("VERIFIED", "verified_at", .time),
    ])
  }
}

/// A backup on a target.
struct BackupName: ParsableArguments {
  @OptionGroup var name: TargetName
  @Argument(help: "The backup.") var backup: String
  var path: [String] { [name.target, backup] }
}

struct BackupShow: RequestCommand {
  static let configuration = CommandConfiguration(commandName: "show", abstract: "Show a backup.")
  @OptionGroup var backup: BackupName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getBackup, backup.path) }
}

struct BackupDelete: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Remove a backup; asks first.")
  @OptionGroup var backup: BackupName
  @Flag(help: "With all that builds on it.") var cascade = false
  @OptionGroup var consent: Consent
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(.removeBackup, backup.path, query: ["cascade": cascade ? "true" : nil])
  }
  var view: View { .done("\(backup.backup): removed") }
  var question: (text: String, isAnswered: Bool)? {
    let what = cascade ? ", and all backups that build on it," : ""
    return ("Remove backup \(backup.backup)\(what) from \(backup.name.target)?", consent.yes)
  }
}
