import PloopFormat
import PloopIO

@testable import PloopControl

/// One value of each kind that the service answers with, no member left empty.
enum Sample {
  private static let moment = 1_764_000_000.25

  static let client = ExportInfo.Client(
    id: 3, peer: "unix:pid=812,uid=0", since: moment, sizeBytes: 5 << 30, receivedBytes: 0,
    sentBytes: 73_400_320, tls: "(TLS1.3)-(ECDHE-SECP256R1)-(AES-256-GCM)",
    names: ["dns:vm1.example"],
    headers: "structured", contexts: ["base:allocation"], requests: 71, requestsInFlight: 2,
    oldestMilliseconds: 40)

  static func export(_ name: String) -> ExportInfo {
    ExportInfo(
      name: name, device: "vm1", readonly: false, snapshot: nil, summary: "the first",
      sizeBytes: 10 << 30,
      uris: ["nbd+unix:///\(name)?socket=/run/ploopd/nbd.sock"], clients: [client],
      access: ExportAccess(tls: true, names: ["dns:vm1.example"], addresses: ["10.0.0.0/8"]),
      revision: 7)
  }

  private static let snapshot = GUID("{6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01}") ?? .none

  static let note: SnapshotNote = {
    var note = SnapshotNote()
    note.name = "before the upgrade"
    note.summary = "by hand"
    note.labels = ["why": "upgrade"]
    note.isProtected = true
    note.createdAt = moment
    return note
  }()

  static let snapshots = [
    SnapshotInfo(
      guid: snapshot, parent: nil, children: [.top, .backup], level: 0, isCurrent: true,
      isTemporary: false, path: "main:vm1/base.raw", isRaw: true, note: note, clusters: 310,
      diskBytes: 325_058_560, exclusiveBytes: 201_326_592, refusal: "snapshot-protected"),
    SnapshotInfo(
      guid: .backup, parent: snapshot, children: [], level: nil, isCurrent: false,
      isTemporary: true, path: "main:vm1/branch.hds", isRaw: false, note: note, clusters: 310,
      diskBytes: 325_058_560, exclusiveBytes: 201_326_592, refusal: "snapshot-protected"),
  ]

  static let images: [ImageInfo] = {
    var orphan = ImageInfo(path: "main:old/x.hds", kind: .image)
    (orphan.version, orphan.sizeBytes, orphan.clusterBytes) = (.v2, 1 << 30, 1 << 20)
    (orphan.state, orphan.reason) = (.orphaned, "no descriptor, device, job or target names it")
    var used = ImageInfo(path: "main:vm1/DiskDescriptor.xml", kind: .descriptor)
    used.state = .used
    used.users = [ImageInfo.User(kind: "device", id: "vm1", isTop: true)]
    return [orphan, used]
  }()

  static func target(_ name: String) -> TargetInfo {
    var target = Target(
      name: name, place: .directory(path: "main:backups"), createdAt: moment)
    target.revision = 80
    return TargetInfo(
      target: target,
      conditions: [
        .init(type: "Reachable", isTrue: true, reason: "Opened", message: "", since: moment)
      ], usage: TargetInfo.Usage(bytes: 73_400_320, backups: 2))
  }

  static let backups: [BackupInfo] = {
    var whole = BackupInfo(
      id: "01KAS", target: "nas", device: "vm1", chain: "01KAS", chainLength: 1,
      diskBytes: 73_400_320)
    whole.state = .complete
    whole.isWhole = true
    (whole.mode, whole.parent) = ("incremental", "01KAR")
    (whole.pointInTime, whole.completedAt, whole.verifiedAt) = (moment, moment + 5, moment + 60)
    (whole.storedBytes, whole.sizeBytes, whole.clusterBytes) = (72_351_744, 10 << 30, 1 << 20)
    whole.journalDigest = String(repeating: "0a", count: 32)
    (whole.snapshot, whole.checkpoint) = (snapshot.description, "backup-nas")
    whole.descriptor = "main:backups/vm1/01KAS/DiskDescriptor.xml"
    whole.place = snapshot
    var damaged = BackupInfo(
      id: "01KAT", target: "nas", device: "vm1", chain: "01KAS", chainLength: 0, diskBytes: 0)
    damaged.problem = "01KAT.sums is missing"
    return [whole, damaged]
  }()

  static let events = [
    Event(
      revision: 6, at: moment, type: "device.created", subject: "vm1", device: "vm1",
      actor: "uid:0"),
    Event(revision: 7, at: moment, type: "export.created", subject: "vm1", device: "vm1"),
    Event(revision: 8, at: moment, type: "device.deleted", subject: "old", device: "old"),
    Event(revision: 9, at: moment, type: "job.state", subject: "j1", device: nil),
  ]

  static func device(_ id: String) -> DeviceInfo {
    DeviceInfo(
      id: id, uuid: "6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01", revision: 41, state: .online,
      sizeBytes: 10 << 30, clusterBytes: 1 << 20, version: .v2, readonly: false,
      suspended: false, noresume: true,
      suspension: Suspension(
        holder: "unix:pid=812,uid=0", since: moment, until: moment + 300),
      prohibition: Prohibition(holder: "nightly", since: moment), autostart: true,
      throttle: .init(readBytes: 1 << 20, writeOperations: 500, burstSeconds: 2),
      labels: ["tenant": "a"],
      source: .descriptor(path: "main:vm1/DiskDescriptor.xml", snapshot: nil),
      deltas: [
        DeltaInfo(
          level: 0, path: "main:vm1/base.raw", guid: snapshot.description, isRaw: true,
          readonly: true, isTop: false,
          clusters: 812, fileBytes: 852_492_288, diskBytes: 851_443_712),
        DeltaInfo(
          level: 1, path: "main:vm1/top.hds", guid: nil, isRaw: false, readonly: false, isTop: true,
          clusters: 310, fileBytes: 326_107_136, diskBytes: 325_058_560),
      ],
      clustersTotal: 10_240, clustersMapped: 1010, holesInTop: 2, exports: [export(id)],
      checkpoints: ["cp-1"], bitmapsInImage: false,
      conditions: [
        .init(type: "Ready", isTrue: true, reason: "Attached", message: "", since: moment)
      ],
      maintenance: ServiceError.Holder(kind: "tracking", id: id),
      repairs: ["cleared the in-use mark of main:vm1/top.hds"], createdAt: moment,
      updatedAt: moment)
  }

  static let service = ServiceInfo(
    version: "0.1.0", node: "host-a", startedAt: moment, revision: 918, features: ["exports"],
    limits: ServiceLimits(),
    roots: [
      .init(name: "main", freeBytes: 81_604_378_624), .init(name: "gone", freeBytes: nil),
    ],
    nbd: [
      .init(uri: "nbds://127.0.0.1:10809", tls: "require"),
      .init(uri: "nbd+unix:///?socket=/run/nbd", tls: "allow"),
    ])

  static let diagnostics = ServiceDiagnostics(
    process: ProcessFacts(
      process: 812, processorSeconds: 1.5, residentBytes: 41 << 20, mostResidentBytes: 50 << 20,
      virtualBytes: 1 << 30, threadCount: 9, openFiles: 31, mostFiles: .max),
    threads: [.init(name: "ploopd-nbd", count: 2, processorSeconds: 0.25)],
    slowOperations: [
      SlowOperation(
        at: moment, device: "vm1", operation: "write", offset: 4096, length: 512, hasFailed: false,
        milliseconds: 1500, admissionMilliseconds: 0, recordingMilliseconds: 1200,
        movingMilliseconds: 0, flushMilliseconds: 250, dataMilliseconds: 50)
    ])

  static func job(
    _ type: String, of device: String?, id: String = "01KAR8", _ state: JobState = .running
  ) -> JobInfo {
    var record = JobRecord(
      id: id, type: type, device: device,
      parameters: ["snapshot": .text("{6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01}")],
      phases: ["copying", "committing"], priority: 50, after: [], limits: JobLimits(),
      labels: ["why": "nightly"], actor: "token:nightly", createdAt: 1_764_000_000)
    record.state = state
    record.phase = "copying"
    record.progress.totalClusters = 3_072
    record.progress.totalBytes = 3_072 << 20
    record.progress.doneClusters = 1_024
    record.progress.lastProgressAt = 1_764_000_200
    record.retry = JobRetry()
    record.startedAt = 1_764_000_100
    record.result = ["clusters_copied": .number(7), "done": .list([.flag(true)])]
    record.error = JobFailure(ServiceError(.ioError, "a disk failed", errno: "EIO"))
    record.revision = 1_203
    var job = JobInfo(record: record)
    job.waitingFor = [JobBlocker(kind: .space, id: nil, detail: "the file system is full")]
    job.bytesPerSecond = 98_566_144
    return job
  }

  static let tracking = TrackingInfo(
    space: .image, clusterBytes: 1 << 20, startedAt: moment, bitsTotal: 312, dirty: 12,
    cursor: 311, pauseNanoseconds: 21_000)

  static let pushBackup = PushBackupInfo(
    uuid: "2f0c", state: .failed, reason: "a request has waited for 42 seconds",
    isIncremental: false, fullReason: "the disk went back to a snapshot",
    clustersTotal: 10_240, remaining: 9_929, clusterBytes: 1 << 20, blockedWrites: 0,
    spilledBytes: 3 << 20, longestWaitMilliseconds: 14, deadlineSeconds: 42, onDeadline: .spill,
    export: "vm1@backup", since: "cp-1", checkpoint: "cp-2", startedAt: moment,
    pauseNanoseconds: 21_000)

  static let checkpoint = CheckpointInfo(
    device: "vm1", name: "cp-1", granularityBytes: 1 << 20, dirtyBytes: 3 << 20, isRecording: true,
    inconsistency: nil, parent: "cp-0", usedBy: ["2f0c"], createdAt: moment,
    pauseNanoseconds: 21_000, revision: 60)

  static let work = PushBackupWork(
    pending: [.init(cluster: 77, offset: 77 << 20, length: 1 << 20, waitingMilliseconds: 12)],
    left: [5..<9_934], remaining: 9_929, blockedWrites: 1)

  static let plan = JobPlan(
    clusters: 812, bytes: 812 << 20, requiredBytes: 812 << 20, freeBytes: nil,
    blockers: [JobBlocker(kind: .job, id: "01KAR7", detail: "it has the device vm1")])

  static let log = [
    JobLogLine(number: 1, at: 1_764_000_100, level: "info", message: "3072 clusters to move"),
    JobLogLine(number: 2, at: 1_764_000_101, level: "debug", message: "64 clusters are moved"),
  ]

  static let map = DeviceMap(
    runs: [
      MapRun(start: 0, length: 3 << 20, level: 1, imageCluster: 7, state: .data),
      MapRun(start: 3 << 20, length: 1 << 20, level: nil, imageCluster: nil, state: .hole),
    ], nextOffset: 4 << 20, revision: 41)

  static func statistics(_ id: String) -> DeviceStatistics {
    let boundaries: [UInt64] = [
      50, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 100_000, 1_000_000,
    ]
    let operation = DeviceStatistics.Operation(
      ops: 912, bytes: 37_355_520, errors: 0, latencyNanoseconds: 81_230_000,
      histogram: Array(repeating: 76, count: boundaries.count + 1))
    return DeviceStatistics(
      device: id, since: moment, boundariesMicroseconds: boundaries, read: operation,
      write: operation, flush: operation, trim: operation, zero: operation, cache: operation,
      copyOnWriteClusters: 310, allocatedClusters: 12, pauses: 2, pauseNanoseconds: 5_000_000,
      longestPauseNanoseconds: 3_000_000, recordingWaits: 1,
      recordingWaitNanoseconds: 1_500_000, backupWaitNanoseconds: 1_000_000,
      throttledReads: .init(count: 2, nanoseconds: 40_000_000),
      throttledWrites: .init(count: 0, nanoseconds: 0), inFlight: 3,
      clients: 1, idleSeconds: 0.25,
      revision: 41)
  }
}
