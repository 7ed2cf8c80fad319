/// The routes by their paths: every request looks its own up, among a hundred.
struct RouteIndex: Sendable {
  private struct Node {
    var fixed: [String: Node] = [:]
    /// What stands behind a place, which takes any segment but an empty one; one node or none.
    var place: [Node] = []
    /// Numbers of the routes that end here.
    var routes: [Int] = []

    mutating func add(_ route: Int, at path: ArraySlice<String?>) {
      guard let segment = path.first else {
        routes.append(route)
        return
      }
      let rest = path.dropFirst()
      if let segment {
        fixed[segment, default: Node()].add(route, at: rest)
      } else {
        if place.isEmpty { place = [Node()] }
        place[0].add(route, at: rest)
      }
    }

    func find(
      _ path: ArraySlice<String>, _ arguments: [String], into found: inout [Found]
    ) {
      guard let segment = path.first else {
        for route in routes { found.append((route, arguments)) }
        return
      }
      fixed[segment]?.find(path.dropFirst(), arguments, into: &found)
      if !segment.isEmpty {
        place.first?.find(path.dropFirst(), arguments + [segment], into: &found)
      }
    }
  }

  private typealias Found = (route: Int, arguments: [String])

  private let routes: [Route]
  private var root = Node()

  init(_ routes: [Route]) {
    self.routes = routes
    for (number, route) in routes.enumerated() { root.add(number, at: route.segments[...]) }
  }

  /// The routes of a path in the order of the table, and what stands in their places.
  func matches(_ segments: [String]) -> [(route: Route, arguments: [String])] {
    var found: [Found] = []
    root.find(segments[...], [], into: &found)
    found.sort { $0.route < $1.route }
    return found.map { (routes[$0.route], $0.arguments) }
  }
}
