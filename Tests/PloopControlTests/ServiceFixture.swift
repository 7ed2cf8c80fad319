import Glibc
import Logging
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

/// A whole service in this process, in a folder of its own, that can be ended and begun again.
final class ServiceFixture {
  let folder: TemporaryFolder
  private let registry: JobRegistry
  private let log: Logger
  private let configuration: Service.Configuration
  private let probe: (any IOProbe)?
  private var running: Service?

  var images: String { "\(folder.path)/images" }

  var state: String { "\(folder.path)/state" }

  /// - Parameters:
  ///   - probe: watches the roots and what is kept beside the database.
  ///   - watch: called with the state folder before the service has it.
  init(
    registry: JobRegistry = .standard,
    configuration: Service.Configuration = Service.Configuration(),
    log: Logger = Logger(label: "test") { _ in
      SwiftLogNoOpLogHandler()
    },
    probe: (any IOProbe)? = nil, watching watch: (_ state: String) throws -> Void = { _ in }
  ) throws {
    folder = try TemporaryFolder()
    self.probe = probe
    self.registry = registry
    self.log = log
    var configuration = configuration
    if let bytes = IndexBudget.bytes { configuration.indexCacheBytes = bytes }
    self.configuration = configuration
    try Tool.shell("mkdir -p '\(images)' '\(state)'")
    try watch(state)
    try start()
  }

  deinit { if let running { _ = running.stop(until: .after(seconds: 20)) } }

  var service: Service { get throws { try #require(running) } }

  /// Ends this life of the service in good order.
  func stop() throws {
    #expect(try service.stop(until: .after(seconds: 60)))
    running = nil
  }

  /// Begins another one; tasks and threads of the last let go of the state folder in their own time, and
  /// may need this thread for it.
  func restart() async throws {
    let deadline = Deadline.after(seconds: 600)
    while running == nil {
      do throws(ServiceError) { try start() } catch {
        guard error.code == .imageInUse, !deadline.hasPassed else { throw error }
        await Task.yield()
      }
    }
  }

  private func start() throws(ServiceError) {
    let service = try Service(
      roots: Roots([("main", images)], probe: probe), store: Store(path: state, probe: probe),
      engine: IOEngine(threadLimit: 4), log: log, configuration: configuration,
      registry: registry)
    try service.recover()
    running = service
  }

  /// Makes a disk in a folder of its id.
  @discardableResult
  func create(_ id: String, sizeBytes: UInt64 = 1 << 20) async throws -> DeviceInfo {
    var create = AttachRequest.CreateRequest(directory: id, sizeBytes: sizeBytes)
    create.clusterBytes = 1 << 16
    return try await service.attach(
      AttachRequest(id: id, source: .create(create)), keeping: nil)
  }

  func snapshot(
    _ id: String, _ change: (inout SnapshotNote) -> Void = { _ in }
  ) async throws -> GUID {
    var request = SnapshotRequest()
    change(&request.note)
    return try await service.addSnapshot(id, request, ifRevision: nil, keeping: nil).snapshot.guid
  }

  /// The code that something is refused with; nil when it is not.
  func code(_ body: (Service) async throws -> Void) async throws -> String? {
    do { try await body(try service) } catch let error as ServiceError {
      return error.code.rawValue
    }
    return nil
  }
}
