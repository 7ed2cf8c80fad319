package import PloopFormat

package protocol ServiceAPI: Sendable {
  func info() async -> ServiceInfo
  func readiness() async -> Readiness
  func metrics() async -> [Metric]
  func diagnostics() async -> ServiceDiagnostics
  func devices(after: String?, limit: Int, state: DeviceState?, labels: [String: String]) async
    -> Page<DeviceInfo>
  func device(_ id: String) async throws(ServiceError) -> DeviceInfo
  /// - Parameter keeper: makes the answer that is kept together with the device.
  func attach(_ request: AttachRequest, keeping keeper: AnswerKeeper<DeviceInfo>?)
    async throws(ServiceError) -> DeviceInfo
  func change(_ id: String, _ change: DeviceChange, ifRevision: UInt64?) async throws(ServiceError)
    -> DeviceInfo
  func resize(_ id: String, to sizeBytes: UInt64, ifRevision: UInt64?)
    async throws(ServiceError) -> Resizing
  func planResize(_ id: String, to sizeBytes: UInt64, ifRevision: UInt64?)
    async throws(ServiceError) -> JobPlan
  func detach(_ id: String, mode: DetachMode, ifRevision: UInt64?) async throws(ServiceError)
  func snapshots(_ id: String) async throws(ServiceError) -> Page<SnapshotInfo>
  func snapshot(_ id: String, _ guid: GUID) async throws(ServiceError)
    -> (snapshot: SnapshotInfo, revision: UInt64)
  func changeSnapshot(_ id: String, _ guid: GUID, _ change: SnapshotChange, ifRevision: UInt64?)
    async throws(ServiceError) -> (snapshot: SnapshotInfo, revision: UInt64)
  func addSnapshot(
    _ id: String, _ request: SnapshotRequest, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<SnapshotMade>?
  ) async throws(ServiceError) -> SnapshotMade
  func switchTop(
    _ id: String, to guid: GUID, keepingTopAs name: String?, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<DeviceInfo>?
  ) async throws(ServiceError) -> DeviceInfo
  func addDelta(
    _ id: String, _ request: AttachRequest.DeltaReference, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<DeltaAdded>?
  ) async throws(ServiceError) -> DeltaAdded
  func changeDelta(
    _ id: String, _ place: DeltaPlace, _ change: DeltaChange, ifRevision: UInt64?
  ) async throws(ServiceError) -> DeltaChanged
  func takeMerged(
    _ id: String, _ place: DeltaPlace, _ direction: MergedInto, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<DeviceInfo>?
  ) async throws(ServiceError) -> DeviceInfo
  func flipTop(
    _ id: String, ifRevision: UInt64?, keeping keeper: AnswerKeeper<DeviceInfo>?
  ) async throws(ServiceError) -> DeviceInfo
  func addJob(_ request: JobRequest, keeping keeper: AnswerKeeper<JobInfo>?)
    async throws(ServiceError) -> JobInfo
  func planJob(_ request: JobRequest) async throws(ServiceError) -> JobPlan
  /// Newest first; `before` is the id of the last one of the part before.
  func jobs(before: String?, limit: Int, _ filter: JobFilter) async throws(ServiceError)
    -> Page<JobInfo>
  func job(_ id: String) async throws(ServiceError) -> JobInfo
  func jobLog(_ id: String, after: UInt64, limit: Int) async throws(ServiceError) -> [JobLogLine]
  func changeJob(_ id: String, _ change: JobChange, ifRevision: UInt64?)
    async throws(ServiceError) -> JobInfo
  func cancelJob(_ id: String, ifRevision: UInt64?) async throws(ServiceError) -> JobInfo
  func retryJob(_ id: String, ifRevision: UInt64?) async throws(ServiceError) -> JobInfo
  func removeJob(_ id: String, ifRevision: UInt64?) async throws(ServiceError)
  func queue() async -> QueueInfo
  func changeQueue(_ change: QueueChange) async throws(ServiceError) -> QueueInfo
  func map(_ id: String, offset: UInt64, length: UInt64?, limit: Int) async throws(ServiceError)
    -> DeviceMap
  func statistics(_ id: String) async throws(ServiceError) -> DeviceStatistics
  /// - Parameter keeper: makes the answer that is kept.
  func startTracking(
    _ id: String, _ space: TrackingSpace, keeping keeper: AnswerKeeper<TrackingInfo>?
  ) async throws(ServiceError) -> TrackingInfo
  func tracking(_ id: String) async throws(ServiceError) -> TrackingInfo
  func takeTracked(_ id: String, limit: Int) async throws(ServiceError) -> TrackedClusters
  func trackedBits(_ id: String) async throws(ServiceError) -> TrackedBits
  func stopTracking(_ id: String) async throws(ServiceError)
  func checkpoints(_ id: String) async throws(ServiceError) -> Page<CheckpointInfo>
  func checkpoint(_ id: String, _ name: String) async throws(ServiceError) -> CheckpointInfo
  func checkpointBits(_ id: String, _ name: String) async throws(ServiceError) -> CheckpointBits
  /// - Parameter keeper: makes the answer that is kept.
  func addCheckpoint(
    _ id: String, _ request: CheckpointRequest, keeping keeper: AnswerKeeper<CheckpointInfo>?
  ) async throws(ServiceError) -> CheckpointInfo
  func removeCheckpoint(_ id: String, _ name: String) async throws(ServiceError)
  /// - Parameter keeper: makes the answer that is kept.
  func startPushBackup(
    _ id: String, _ request: PushBackupRequest, keeping keeper: AnswerKeeper<PushBackupInfo>?
  ) async throws(ServiceError) -> PushBackupInfo
  func pushBackup(_ id: String) async throws(ServiceError) -> PushBackupInfo
  func readPushBackup(
    _ id: String, uuid: String, limit: Int, left: (from: Int, limit: Int)
  ) async throws(ServiceError) -> PushBackupWork
  func confirmPushBackup(_ id: String, uuid: String, _ clusters: [Range<Int>])
    async throws(ServiceError) -> (confirmed: Int, remaining: Int)
  func pushBackupData(_ id: String, uuid: String?, _ range: ClosedRange<UInt64>)
    async throws(ServiceError) -> (bytes: [UInt8], size: UInt64)
  func stopPushBackup(_ id: String, uuid: String, isComplete: Bool)
    async throws(ServiceError) -> PushBackupInfo
  /// In the order of their paths; `after` is the path of the last one of the part before.
  func images(root: String?, state: ImageInfo.State?, after: String?, limit: Int)
    async throws(ServiceError) -> ImageListing
  func targets(after: String?, limit: Int) async -> Page<TargetInfo>
  func target(_ name: String) async throws(ServiceError) -> TargetInfo
  func addTarget(_ request: TargetRequest, keeping keeper: AnswerKeeper<TargetInfo>?)
    async throws(ServiceError) -> TargetInfo
  func changeTarget(_ name: String, _ change: TargetChange, ifRevision: UInt64?)
    async throws(ServiceError) -> TargetInfo
  /// - Parameter leavingBackups: whether it may go though there are backups, which stay where they are.
  func removeTarget(_ name: String, leavingBackups: Bool, ifRevision: UInt64?)
    async throws(ServiceError)
  /// In the order of their devices, chains and times; `after` is the id of the last one of the part before.
  func backups(on target: String, of device: String?, after: String?, limit: Int)
    async throws(ServiceError) -> Page<BackupInfo>
  func backup(_ id: String, on target: String) async throws(ServiceError) -> BackupInfo
  /// - Parameter cascading: whether what builds on it goes with it.
  func removeBackup(_ id: String, on target: String, cascading: Bool) async throws(ServiceError)
  /// Those of the fleet, in the order of their names; none of a host of its own.
  func nodes() async -> [NodeInfo]
  func move(_ id: String, to node: String, ifRevision: UInt64?)
    async throws(ServiceError) -> DeviceMoved
  /// - Returns: that another node has it, and which; nil for what is here, or nowhere.
  func elsewhere(device: String) -> ServiceError?
  func elsewhere(export: String) -> ServiceError?
  func exports(after: String?, limit: Int) async -> Page<ExportInfo>
  func export(_ name: String) async throws(ServiceError) -> ExportInfo
  func addExport(_ request: ExportRequest, keeping keeper: AnswerKeeper<ExportInfo>?)
    async throws(ServiceError) -> ExportInfo
  func removeExport(_ name: String, mode: DetachMode, ifRevision: UInt64?)
    async throws(ServiceError)
  func content(of export: String) async throws(ServiceError) -> any ExportContent

  func events(after: UInt64?, matching filter: EventFilter, limit: Int)
    async throws(ServiceError) -> Page<Event>
  var eventCursor: EventCursor { get }
  func transientEvents(after cursor: UInt64, matching filter: EventFilter) -> ([Event], UInt64)

  /// Takes a key for the time that its request is being served; release it then.
  func claim(_ key: RequestKey) async throws(ServiceError) -> RequestClaim
  func release(_ key: RequestKey)

  /// What the clients of a device do; asks no disk.
  ///
  /// - Returns: nil where there is no such device.
  func activity(of device: String) -> DeviceActivity?

  /// How often anything has changed; ask before looking at what is to be waited for.
  var changes: UInt64 { get }
  func change(of topic: Topic, since changes: UInt64, milliseconds: Int) async -> WaitingRoom.End
}

/// What the clients do that a device has: others may come for as long as ``ServiceAPI/changes`` stays as it was before
/// they were looked up, and it tells of those no more.
package struct DeviceActivity: Sendable {
  private let count: @Sendable () -> UInt64

  package init(_ count: @escaping @Sendable () -> UInt64) { self.count = count }

  /// The same for as long as none of them sends or is sent anything.
  package var current: UInt64 { count() }
}
