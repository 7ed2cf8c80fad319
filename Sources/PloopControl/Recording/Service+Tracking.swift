internal import Logging
internal import PloopDevice
package import PloopIO

// Which clusters of a device are written, for somebody who copies it while it is used.

package enum TrackingSpace: String, Sendable {
  case image, virtual
}

package struct TrackingInfo: Sendable, Equatable {
  package var space: TrackingSpace
  package var clusterBytes: UInt64
  /// Seconds since 1970.
  package var startedAt: Double
  /// Clusters of the space, how many of them are to be handed out, and which was the last.
  package var bitsTotal: Int
  package var dirty: Int
  package var cursor: Int
  /// For how long requests had to wait when it began.
  package var pauseNanoseconds: UInt64
}

/// Clusters that were handed out, in order, and how many are left.
package struct TrackedClusters: Sendable {
  package var clusters: [Int]
  package var left: Int
}

package struct TrackedBits: Sendable {
  package var bits: Bitmap
  package var clusterBytes: UInt64
}

extension Service {
  package func startTracking(
    _ id: String, _ space: TrackingSpace, keeping keeper: AnswerKeeper<TrackingInfo>?
  ) async throws(ServiceError) -> TrackingInfo {
    try requireServing()
    let controller = try controller(id)
    let info = try await controller.run { () throws(ServiceError) in
      try self.begin(space, controller, keeping: keeper)
    }
    log.info("tracking", metadata: ["device": "\(id)", "space": "\(space.rawValue)"])
    return info
  }

  private func begin(
    _ space: TrackingSpace, _ controller: DeviceController,
    keeping keeper: AnswerKeeper<TrackingInfo>?
  ) throws(ServiceError) -> TrackingInfo {
    let device = try controller.device()
    if case .tracking = controller.now.maintenance {
      throw ServiceError(
        .trackingActive, "the device \(controller.id) is tracked already", errno: "EEXIST",
        holder: controller.now.maintenance?.holder)
    }
    try requireFree(controller)
    let topic = Topic.tracking(controller.id)
    let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
    let tracker = try converting { () throws(DeviceError) in
      try Tracker(
        space == .image ? .image : .virtual, of: device, until: deadline,
        whenMarked: { [waiting] in waiting.changed([topic]) })
    }
    do throws(ServiceError) {
      let info = TrackingInfo(tracker)
      try hold(
        controller, by: .tracking(tracker, device: controller.id), info, keeping: keeper)
      return info
    } catch {
      try? tracker.end(until: deadline)
      throw error
    }
  }

  package func tracking(_ id: String) async throws(ServiceError) -> TrackingInfo {
    TrackingInfo(try tracker(of: id))
  }

  /// Hands out up to `limit` clusters that have been written; none is no error.
  package func takeTracked(
    _ id: String, limit: Int
  ) async throws(ServiceError) -> TrackedClusters {
    let (taken, left) = try tracker(of: id).marks.take(limit)
    return TrackedClusters(clusters: taken, left: left)
  }

  /// What is still to be handed out; nothing is.
  package func trackedBits(_ id: String) async throws(ServiceError) -> TrackedBits {
    let tracker = try tracker(of: id)
    return TrackedBits(bits: tracker.marks.bits, clusterBytes: tracker.clusterBytes)
  }

  package func stopTracking(_ id: String) async throws(ServiceError) {
    let controller = try controller(id)
    try await controller.run { () throws(ServiceError) in
      let tracker = try self.tracker(of: id)
      try converting { () throws(DeviceError) in
        try tracker.end(until: .after(seconds: self.configuration.quiesceSeconds))
      }
      // Those who wait for clusters hear that there will be none.
      defer { self.waiting.changed([.tracking(id)]) }
      try self.release(controller)
    }
    log.info("tracking ended", metadata: ["device": "\(id)"])
  }

  private func tracker(of id: String) throws(ServiceError) -> Tracker {
    guard case .tracking(let tracker, _) = try controller(id).now.maintenance else {
      throw ServiceError(
        .trackingNotActive, "the device \(id) is not tracked", errno: "ENOENT")
    }
    return tracker
  }
}

extension TrackingInfo {
  init(_ tracker: Tracker) {
    let facts = tracker.marks.facts
    self.init(
      space: tracker.space == .image ? .image : .virtual, clusterBytes: tracker.clusterBytes,
      startedAt: tracker.startedAt, bitsTotal: facts.count, dirty: facts.marked,
      cursor: facts.cursor, pauseNanoseconds: tracker.pauseNanoseconds)
  }
}
