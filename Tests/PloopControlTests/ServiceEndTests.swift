import PloopDevice
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

/// The end of the service beside operations of its devices that do not end.
@Suite("The end of the service")
struct ServiceEndTests {
  private let fixture: ServiceFixture

  init() throws { fixture = try ServiceFixture() }

  private func isClosed(_ name: String) throws -> Bool {
    try Tool.shell("xxd -s 44 -l 4 -p '\(fixture.images)/\(name)/root.hds'").output == "00000000\n"
  }

  @Test(
    "closes no disk beneath an operation, and every other one; what is left is known to be open")
  func besideAnOperation() async throws {
    for name in ["a", "b"] { try await fixture.create(name) }
    let controller = try fixture.service.controller("a")
    // As an operation that is at work has it.
    #expect(controller.takeTurn(until: .after(seconds: 120)))
    #expect(try !fixture.service.stop(until: .after(seconds: 2)))
    #expect(try isClosed("b") && !isClosed("a"))
    #expect(controller.attachedDevice != nil && controller.now.record?.isAttached == true)
    controller.giveTurnBack()
    try fixture.stop()
    #expect(try isClosed("a"))
  }

  @Test("waits for no operation of a device that is tracked, nor for its suspension's end")
  func besideMaintenance() async throws {
    for name in ["a", "b"] { try await fixture.create(name) }
    _ = try await fixture.service.startTracking("a", .virtual, keeping: nil)
    let controller = try fixture.service.controller("a")
    #expect(controller.takeTurn(until: .after(seconds: 120)))
    #expect(try !fixture.service.stop(until: .after(seconds: 2)))
    #expect(try isClosed("b"))
    controller.giveTurnBack()
    try fixture.stop()
    #expect(controller.now.maintenance == nil)
    #expect(try isClosed("a"))
  }
}
