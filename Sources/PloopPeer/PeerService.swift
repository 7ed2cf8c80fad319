internal import FoundationEssentials
internal import PloopIO

/// Another ploopd, as its clients see it: what the job that moves a disk there asks of it.
package struct PeerService: Sendable {
  /// A device of the other service, as far as it matters here.
  package struct Device: Decodable, Sendable {
    package var id: String
    package var state: String
    package var size: UInt64
    /// By what its sender has named it, while it is his.
    package var incoming: String?
    package var exports: [Export]
  }

  package struct Export: Decodable, Sendable {
    package var name: String
    package var device: String
    package var readonly: Bool
  }

  /// Who may use an export; what is nil is not asked.
  package struct Access: Encodable, Sendable {
    var tls: Bool
    var names: [String]?
    var addresses: [String]?

    package init(tls: Bool, names: [String]?, addresses: [String]?) {
      self.tls = tls
      self.names = names
      self.addresses = addresses
    }
  }

  /// A disk that is to be made there.
  package struct NewDevice: Sendable {
    package var id: String
    package var directory: String
    package var sizeBytes: UInt64
    package var clusterBytes: UInt64
    package var version: Int
    package var export: String
    package var incoming: String

    package init(
      id: String, directory: String, sizeBytes: UInt64, clusterBytes: UInt64, version: Int,
      export: String, incoming: String
    ) {
      self.id = id
      self.directory = directory
      self.sizeBytes = sizeBytes
      self.clusterBytes = clusterBytes
      self.version = version
      self.export = export
      self.incoming = incoming
    }
  }

  private let client: HTTPClient
  package var name: String { client.address.name }

  package init(_ address: PeerAddress) { client = HTTPClient(address: address) }

  // MARK: What is asked

  /// - Returns: nil where there is none of this id.
  package func device(_ id: String) throws(PeerError) -> Device? {
    do throws(PeerError) { return try ask("GET", "/v1/devices/\(id)") } catch {
      guard error.isNotFound else { throw error }
      return nil
    }
  }

  @discardableResult
  package func create(_ device: NewDevice) throws(PeerError) -> Device {
    struct Body: Encodable {
      struct Create: Encodable {
        enum CodingKeys: String, CodingKey {
          case directory, size, version
          case clusterBytes = "cluster_size"
        }

        var directory: String
        var size: UInt64
        var clusterBytes: UInt64
        var version: Int
      }
      struct Export: Encodable { var name: String }
      var id: String
      var create: Create
      var export: Export
      var incoming: String
    }
    return try ask(
      "POST", "/v1/devices",
      Body(
        id: device.id,
        create: Body.Create(
          directory: device.directory, size: device.sizeBytes, clusterBytes: device.clusterBytes,
          version: device.version),
        export: Body.Export(name: device.export), incoming: device.incoming))
  }

  /// - Returns: nil where there is none of this name.
  package func export(_ name: String) throws(PeerError) -> Export? {
    do throws(PeerError) { return try ask("GET", "/v1/exports/\(name)") } catch {
      guard error.isNotFound else { throw error }
      return nil
    }
  }

  /// - Parameter access: nil for everybody.
  package func addExport(
    _ name: String, of device: String, for access: Access? = nil
  ) throws(PeerError) {
    struct Body: Encodable {
      var name: String
      var device: String
      var access: Access?
    }
    let _: Export = try ask(
      "POST", "/v1/exports", Body(name: name, device: device, access: access))
  }

  /// Closes a door, whoever goes through it. That there is none is no error.
  package func removeExport(_ name: String) throws(PeerError) {
    try remove("/v1/exports/\(name)?mode=hard")
  }

  /// The disk of a sender is a disk like any other from now on.
  package func takeOver(_ device: String) throws(PeerError) {
    let _: Device = try ask(
      "PATCH", "/v1/devices/\(device)", body: Array(#"{"incoming":null}"#.utf8))
  }

  /// Removes a device, and its files if it is a sender's. That there is none is no error.
  package func remove(device: String) throws(PeerError) {
    try remove("/v1/devices/\(device)?mode=hard")
  }

  // MARK: How

  private func remove(_ path: String) throws(PeerError) {
    do throws(PeerError) { _ = try answer("DELETE", path, nil) } catch {
      guard error.isNotFound else { throw error }
    }
  }

  private func ask<Answer: Decodable>(
    _ method: String, _ path: String, _ body: some Encodable
  ) throws(PeerError) -> Answer {
    guard let bytes = try? JSONEncoder().encode(body) else {
      throw PeerError(.unsuitable, "\(name): what is to be asked cannot be written down")
    }
    return try ask(method, path, body: Array(bytes))
  }

  private func ask<Answer: Decodable>(
    _ method: String, _ path: String, body: [UInt8]? = nil
  ) throws(PeerError) -> Answer {
    let bytes = try answer(method, path, body)
    guard let answer = try? JSONDecoder().decode(Answer.self, from: Data(bytes)) else {
      throw PeerError(
        .unsuitable, "\(name): what it answers to \(method) \(path) is not understood")
    }
    return answer
  }

  /// - Returns: the body of a reply that says yes.
  private func answer(
    _ method: String, _ path: String, _ body: [UInt8]?
  ) throws(PeerError) -> [UInt8] {
    let reply = try client.send(method, path, body)
    guard !(200..<300).contains(reply.status) else { return reply.body }
    struct Problem: Decodable {
      var code: String
      var detail: String?
    }
    let problem = try? JSONDecoder().decode(Problem.self, from: Data(reply.body))
    // Of somebody else's words no more than people read is written down.
    let words = problem?.detail.map { String($0.prefix(500)) } ?? "status \(reply.status)"
    let code = String((problem?.code ?? "").prefix(64))
    // A service that comes or goes, and what a proxy says of one that is not there.
    let passes = reply.status == 429 || reply.status >= 500
    throw PeerError(
      passes ? .unreachable : .refused(status: reply.status, code: code),
      "\(name): \(words)")
  }
}
