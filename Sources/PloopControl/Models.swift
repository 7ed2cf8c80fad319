internal import PloopDevice
package import PloopFormat
package import PloopIO

// What the service is asked and what it answers, as plain values. HTTP turns them into JSON and
// back; nothing here knows that.

/// The body of an attach request: one disk, where it comes from, and how it is to be served.
package struct AttachRequest: Sendable {
  package enum Source: Sendable {
    /// Oldest to newest; the last is the top, the one that is written.
    case deltas([DeltaReference])
    case descriptor(DescriptorReference)
    case create(CreateRequest)
  }

  package struct DescriptorReference: Sendable, Equatable {
    /// `root:relative`, or `relative` when there is only one root.
    package var path: String
    /// A snapshot, to be attached for reading; nil for the top.
    package var snapshot: GUID?

    package init(path: String, snapshot: GUID? = nil) {
      self.path = path
      self.snapshot = snapshot
    }
  }

  package struct DeltaReference: Sendable, Equatable {
    /// `root:relative`, or `relative` when there is only one root.
    package var path: String
    /// Never guessed.
    package var isRaw: Bool

    package init(path: String, isRaw: Bool = false) {
      self.path = path
      self.isRaw = isRaw
    }
  }

  package struct CreateRequest: Sendable {
    /// `root:relative`; made if it is missing.
    package var directory: String
    package var sizeBytes: UInt64
    package var clusterBytes: UInt64 = 1 << 20
    package var version: ImageVersion = .v2

    package init(directory: String, sizeBytes: UInt64) {
      self.directory = directory
      self.sizeBytes = sizeBytes
    }
  }

  package enum Repair: String, Sendable {
    case none
    case safe
  }

  package var id: String
  package var source: Source
  package var readonly = false
  package var suspended = false
  /// Who asks.
  package var caller = "unknown"
  package var autostart = true
  package var labels: [String: String] = [:]
  package var repair = Repair.none
  /// A clean detach writes checkpoints into the image as well.
  package var bitmapsInImage = false
  package var exportName: String?
  /// Who may use that export; nil for everybody.
  package var exportAccess: ExportAccess?
  /// What is made is the copy of a disk that is still somebody else's, under a name of his.
  package var incoming: String?

  package static let incomingLengthLimit = 64

  package init(id: String, source: Source) {
    self.id = id
    self.source = source
  }
}

/// What PATCH may change; nil leaves a setting as it is.
package struct DeviceChange: Sendable {
  package var suspended: Bool?
  /// After how long it is to be resumed by itself.
  package var suspendSeconds: UInt64?
  package var noresume: Bool?
  /// Resume it though that is prohibited.
  package var isForced = false
  /// Who asks, for those who find it suspended.
  package var caller = "unknown"
  package var autostart: Bool?
  /// How fast its NBD clients may go.
  package var throttle: TransferRatesChange?
  /// The copy of a disk that was somebody else's is a disk like any other now.
  package var isTakenOver = false
  /// A nil value removes the label.
  package var labels: [String: String?]?

  package init() {}
}

package enum DeviceState: String, Sendable, CaseIterable {
  case attaching, online, suspended, degraded, failed, detaching
}

package struct DeltaInfo: Sendable {
  package var level: Int
  package var path: String
  /// The snapshot, or the top, whose delta it is, where a descriptor says so.
  package var guid: String?
  package var isRaw: Bool
  package var readonly: Bool
  package var isTop: Bool
  /// Clusters that this delta's own index maps.
  package var clusters: UInt64
  package var fileBytes: UInt64
  package var diskBytes: UInt64
}

/// A delta that has been put into a chain.
package struct DeltaAdded: Sendable {
  package var device: String
  package var delta: DeltaInfo
  package var revision: UInt64
}

/// A delta of a chain, as a request names it.
package enum DeltaPlace: Sendable, Equatable {
  case top
  /// 0 is the oldest.
  case level(Int)
}

/// What another program has done to a delta, or is to be done because of it.
package enum DeltaChange: Sendable {
  package struct IndexEntry: Sendable, Equatable {
    package var cluster: UInt64
    /// The cluster of the file that holds it now.
    package var to: UInt64

    package init(cluster: UInt64, to: UInt64) {
      self.cluster = cluster
      self.to = to
    }
  }

  package static let indexLimit = Device.indexMoveLimit

  /// It has moved clusters inside the file; all of the index is checked if so wished.
  case index([IndexEntry], isWholeChecked: Bool)
  /// The same content lies in another file; compared byte by byte if so wished.
  case path(String, isContentChecked: Bool)
}

/// Which neighbour another program has merged a delta into.
package enum MergedInto: String, Sendable {
  /// The one above.
  case forward
  /// The one below.
  case backward
}

package struct DeltaChanged: Sendable {
  package var delta: DeltaInfo
  /// Clusters that are read from their new places, and those that a newer delta shadows; nil where no
  /// index was changed.
  package var applied: Int?
  package var skipped: Int?
  package var revision: UInt64
}

/// A restore point of a disk, as its descriptor has it.
package struct SnapshotInfo: Sendable {
  package var guid: GUID
  /// Nil for the oldest.
  package var parent: GUID?
  /// What builds on it, the top included.
  package var children: [GUID]
  /// Of its delta in the device's chain; nil on another branch.
  package var level: Int?
  /// Whether the top builds on it.
  package var isCurrent: Bool
  /// Taken out of use, until somebody merges it away.
  package var isTemporary: Bool
  package var path: String
  package var isRaw: Bool
  package var note: SnapshotNote
  /// Clusters that its own delta maps.
  package var clusters: UInt64
  /// Bytes of disk that its file takes, and that would be free if it were deleted.
  package var diskBytes: UInt64
  package var exclusiveBytes: UInt64
  /// The code with which deleting it would be refused now.
  package var refusal: String?
}

/// What PATCH may change of a snapshot; nil leaves it as it is.
package struct SnapshotChange: Sendable {
  /// An inner nil removes it.
  package var name: String??
  package var summary: String??
  /// A nil value removes the label.
  package var labels: [String: String?]?
  package var isProtected: Bool?

  package init() {}
}

/// The body of a request for a snapshot.
package struct SnapshotRequest: Sendable {
  /// Its name; a new one when nil.
  package var guid: GUID?
  /// An empty image that becomes the top, `root:relative`; one is made when nil.
  package var deltaPath: String?
  /// Begins at the same instant.
  package var checkpoint: CheckpointRequest?
  package var note = SnapshotNote()

  package init() {}
}

/// A snapshot that was made.
package struct SnapshotMade: Sendable {
  package var device: String
  package var snapshot: SnapshotInfo
  /// For how long requests had to wait; nil when a crash has come since, and nobody knows.
  package var pauseNanoseconds: UInt64?
  /// Of the device.
  package var revision: UInt64
}

package struct DeviceInfo: Sendable {
  /// Where the chain is taken from.
  package enum Source: Sendable {
    case deltas
    /// `snapshot` is nil for the top.
    case descriptor(path: String, snapshot: String?)
  }

  package struct Condition: Sendable {
    package var type: String
    package var isTrue: Bool
    package var reason: String
    package var message: String
    package var since: Double
  }

  package var id: String
  package var uuid: String
  package var revision: UInt64
  package var state: DeviceState
  package var sizeBytes: UInt64
  package var clusterBytes: UInt64
  package var version: ImageVersion
  package var readonly: Bool
  package var suspended: Bool
  package var noresume: Bool
  package var suspension: Suspension?
  package var prohibition: Prohibition?
  package var autostart: Bool
  /// How fast its NBD clients may go, all together; nil for as fast as it is.
  package var throttle: TransferRates?
  /// The copy of a disk that is still somebody else's, and by what he has named it.
  package var incoming: String?
  package var labels: [String: String]
  package var source: Source
  package var deltas: [DeltaInfo]
  package var clustersTotal: UInt64
  package var clustersMapped: UInt64
  package var holesInTop: UInt64
  package var exports: [ExportInfo]
  /// Names, oldest first.
  package var checkpoints: [String]
  package var bitmapsInImage: Bool
  package var conditions: [Condition]
  /// Who outside has it at work, so that its chain stays as it is.
  package var maintenance: ServiceError.Holder?
  /// What safe repair did at attach, in words; empty when nothing had to be done.
  package var repairs: [String]
  /// Seconds since 1970.
  package var createdAt: Double
  package var updatedAt: Double

  /// Clients that were told another size than the disk has now: they keep it until they come again.
  package var staleClients: [(export: String, client: ExportInfo.Client)] {
    exports.filter { $0.snapshot == nil }.flatMap { export in
      export.clients.filter { $0.sizeBytes ?? export.sizeBytes != export.sizeBytes }
        .map { (export.name, $0) }
    }
  }
}

package struct ExportInfo: Sendable {
  package struct Client: Sendable {
    package var id: UInt64
    package var peer: String
    package var since: Double
    /// How large it was told that the export is; nil for one that is just coming.
    package var sizeBytes: UInt64?
    package var receivedBytes: UInt64
    package var sentBytes: UInt64
    /// Protocol and cipher; nil without TLS.
    package var tls: String?
    /// Those for which its certificate or its pre-shared key vouches, with their kinds.
    package var names: [String] = []
    /// How its requests and replies are laid out; nil for one that is just coming.
    package var headers: String?
    /// The meta contexts that it has selected.
    package var contexts: [String] = []
    /// Requests so far.
    package var requests: UInt64 = 0
    /// Of those, the ones that wait for a disk or for admission.
    package var requestsInFlight = 0
    /// For how long the oldest of them has; nil when there are none.
    package var oldestMilliseconds: UInt64?
  }

  package var name: String
  package var device: String
  package var readonly: Bool
  /// The snapshot that is read; nil for the device as it is.
  package var snapshot: String?
  package var summary: String
  package var sizeBytes: UInt64
  package var uris: [String]
  package var clients: [Client]
  /// Who may use it; nil for everybody.
  package var access: ExportAccess?
  package var revision: UInt64
}

package struct ExportRequest: Sendable {
  package var name: String
  package var device: String
  package var readonly = false
  package var snapshot: GUID?
  /// A second writable door to one disk is refused unless this is said.
  package var sharedWriters = false
  package var summary = ""
  package var access: ExportAccess?

  package init(name: String, device: String) {
    self.name = name
    self.device = device
  }
}

package enum DetachMode: String, Sendable {
  /// Refused while clients are connected, after waiting briefly for those that are leaving.
  case safe
  /// Clients are dropped once their requests in flight are answered and flushed.
  case hard
}

package struct MapRun: Sendable {
  package enum State: String, Sendable { case data, zero, hole }
  package var start: UInt64
  package var length: UInt64
  package var level: Int?
  package var imageCluster: UInt64?
  package var state: State
}

package struct DeviceMap: Sendable {
  package var runs: [MapRun]
  package var nextOffset: UInt64?
  package var revision: UInt64
}

package struct DeviceStatistics: Sendable {
  package struct Operation: Sendable {
    package var ops: UInt64 = 0
    package var bytes: UInt64 = 0
    package var errors: UInt64 = 0
    package var latencyNanoseconds: UInt64 = 0
    /// One count for each bucket of `boundariesMicroseconds`, and one for all beyond.
    package var histogram: [UInt64] = []
  }

  /// Requests that had to wait, and for how long, all together.
  package struct Waits: Sendable {
    package var count: UInt64
    package var nanoseconds: UInt64

    package init(count: UInt64, nanoseconds: UInt64) {
      self.count = count
      self.nanoseconds = nanoseconds
    }
  }

  package var device: String
  package var since: Double
  package var boundariesMicroseconds: [UInt64]
  package var read: Operation
  package var write: Operation
  package var flush: Operation
  package var trim: Operation
  package var zero: Operation
  package var cache: Operation
  package var copyOnWriteClusters: UInt64
  package var allocatedClusters: UInt64
  /// Changes of the chain for which requests had to wait, and for how long.
  package var pauses: UInt64
  package var pauseNanoseconds: UInt64
  package var longestPauseNanoseconds: UInt64
  /// Writes that had to wait for a checkpoint's mark or for the copy of a push backup, and for how long.
  package var recordingWaits: UInt64
  package var recordingWaitNanoseconds: UInt64
  /// A part of it: for the copies of push backups.
  package var backupWaitNanoseconds: UInt64
  /// Of NBD clients that had to wait since the disk's clients may go only so fast.
  package var throttledReads: Waits
  package var throttledWrites: Waits
  package var inFlight: UInt64
  package var clients: UInt64
  package var idleSeconds: Double
  package var revision: UInt64
}

package struct ServiceInfo: Sendable {
  package struct Root: Sendable {
    package var name: String
    package var freeBytes: UInt64?
  }

  package struct Listener: Sendable {
    package var uri: String
    /// Whether clients use TLS: off, allow or require.
    package var tls: String
  }

  package var version: String
  package var node: String
  package var startedAt: Double
  package var revision: UInt64
  package var features: [String]
  package var limits: ServiceLimits
  package var roots: [Root]
  package var nbd: [Listener]
}

package struct ServiceLimits: Sendable {
  package var maxDevices = 10_000
  package var maxReadOnlyDeltas = 255
  package var maxConnections = 1_024
  /// Callers that wait for a change at the same time.
  package var maxWatchers = 256
  /// Clients that listen to events at the same time.
  package var maxEventClients = 64
  package var maxWaitSeconds = 60
  /// Jobs that are not over.
  package var maxJobs = 10_000

  package init() {}
}

package struct Readiness: Sendable {
  package struct Check: Sendable {
    package var name: String
    package var ok: Bool
    package var detail: String
  }

  package var checks: [Check]
  package var isReady: Bool { checks.allSatisfy(\.ok) }
}

/// A part of a list, and where the next part begins.
package struct Page<Item: Sendable>: Sendable {
  package var items: [Item]
  /// The id of the last item, to be given as `after`; nil at the end.
  package var next: String?
  package var revision: UInt64
}
