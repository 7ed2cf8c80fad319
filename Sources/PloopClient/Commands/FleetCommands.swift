internal import ArgumentParser
internal import PloopJSON

struct NodeGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "nodes", abstract: "Hosts that serve disks together.",
    subcommands: [NodeList.self])
}

struct NodeList: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List the nodes of the fleet.")
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.listNodes) }
  var view: View {
    .table([
      Column("NODE", "name"), Column("DEVICES", "devices"), Column("CAPACITY", "capacity"),
      Column("SERVING", "serving"), Column("ENDPOINT", "endpoint"), Column("VERSION", "version"),
      Column("TROUBLE", "trouble"),
    ])
  }
}

struct DeviceMove: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "move", abstract: "Have another node of the fleet serve a device.",
    discussion: "Its clients are disconnected, and come back to the other node.")
  @OptionGroup var name: DeviceName
  @Option(help: ArgumentHelp("The node.", valueName: "node")) var to: String
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(.moveDevice, [name.device], body: .members(["to": .string(to)]))
  }
}
