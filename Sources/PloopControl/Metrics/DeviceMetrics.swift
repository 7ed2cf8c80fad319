internal import PloopIO

// What is measured of devices, and of what is recorded of them.

/// Everything that is known of a device when somebody collects metrics.
struct DeviceMeasures {
  var info: DeviceInfo
  /// Nil unless it is attached.
  var statistics: DeviceStatistics?
  var tracking: TrackingInfo?
  /// Somebody else's, or that of a job.
  var pushBackup: PushBackupInfo?
  var checkpoints: [CheckpointInfo]
}

/// A metric of every device.
struct DeviceMetric {
  let kind: Metric.Kind
  /// Behind `ploopd_`.
  let name: String
  let help: String
  /// The samples of one device, without the label that names it.
  let samples: (DeviceMeasures) -> [Metric.Sample]

  init(
    _ kind: Metric.Kind, _ name: String, _ help: String,
    _ samples: @escaping (DeviceMeasures) -> [Metric.Sample]
  ) {
    self.kind = kind
    self.name = name
    self.help = help
    self.samples = samples
  }

  func metric(of devices: [DeviceMeasures]) -> Metric {
    Metric(
      kind, "ploopd_\(name)", help,
      devices.flatMap { device in
        samples(device).map { Metric.Sample($0.value, [("device", device.info.id)] + $0.labels) }
      })
  }
}

extension DeviceMetric {
  static var all: [DeviceMetric] { shape + work + pauses + throttles + recording }

  private static var shape: [DeviceMetric] {
    [
      DeviceMetric(.gauge, "device_size_bytes", "Size of the disk.") {
        [.init($0.info.sizeBytes)]
      },
      DeviceMetric(.gauge, "device_deltas", "Deltas of the chain, the top included.") {
        [.init($0.info.deltas.count)]
      },
      DeviceMetric(
        .gauge, "device_disk_bytes", "What the files of the chain take on their file systems."
      ) { device in
        ["top", "snapshots"].map { layer in
          .init(
            device.info.deltas.filter { $0.isTop == (layer == "top") }.reduce(0.0) {
              $0 + Double($1.diskBytes)
            }, [("layer", layer)])
        }
      },
      DeviceMetric(.gauge, "device_suspended", "1 while no request is admitted.") {
        [.init($0.info.suspended)]
      },
      DeviceMetric(
        .gauge, "device_condition", "1 for a condition that holds, 0 for one that does not."
      ) {
        $0.info.conditions.map { .init($0.isTrue, [("type", $0.type)]) }
      },
    ]
  }

  private static var work: [DeviceMetric] {
    [
      operations(
        "device_ops_total", "Requests that have ended, those that failed included."
      ) { .init($0.ops) },
      bytes("read", \.read), bytes("write", \.write), bytes("trim", \.trim), bytes("zero", \.zero),
      operations("device_io_errors_total", "Requests that failed.") { .init($0.errors) },
      DeviceMetric(.histogram, "device_io_seconds", "How long requests took inside the service.") {
        device in
        guard let statistics = device.statistics else { return [] }
        return statistics.operations.map { name, values in
          .init(
            .histogram(
              Metric.Histogram(
                boundaries: statistics.boundariesMicroseconds.map { Double($0) / 1e6 },
                counts: values.histogram, sum: Double(values.latencyNanoseconds) / 1e9)),
            [("op", name)])
        }
      },
      counted(.gauge, "device_in_flight", "Requests that are being served.") { .init($0.inFlight) },
      counted(
        .counter, "device_cow_clusters_total", "Clusters that were copied since they were written."
      ) { .init($0.copyOnWriteClusters) },
      counted(
        .counter, "device_allocated_clusters_total", "Clusters that were given a place in the top."
      ) { .init($0.allocatedClusters) },
    ]
  }

  private static var pauses: [DeviceMetric] {
    [
      counted(
        .counter, "device_pauses_total", "Changes of the disk for which requests had to wait."
      ) { .init($0.pauses) },
      counted(
        .counter, "device_pause_seconds_total", "For how long requests had to wait for them."
      ) { .init(Double($0.pauseNanoseconds) / 1e9) },
      counted(
        .counter, "device_recording_waits_total",
        "Writes that had to wait for a checkpoint's mark or for the copy of a push backup."
      ) { .init($0.recordingWaits) },
      counted(
        .counter, "device_recording_wait_seconds_total", "For how long they had to wait."
      ) { .init(Double($0.recordingWaitNanoseconds) / 1e9) },
      counted(
        .counter, "device_backup_wait_seconds_total",
        "A part of it: for how long they waited for the copy of a push backup."
      ) { .init(Double($0.backupWaitNanoseconds) / 1e9) },
    ]
  }

  private static var throttles: [DeviceMetric] {
    [
      limit("bytes", \.readBytes, \.writeBytes), limit("ops", \.readOperations, \.writeOperations),
      throttled("waits", "Requests of NBD clients that had to wait for their turn under it.") {
        Double($0.count)
      },
      throttled("wait_seconds", "For how long they had to wait.") { Double($0.nanoseconds) / 1e9 },
    ]
  }

  private static func limit(
    _ unit: String, _ reads: KeyPath<TransferRates, UInt64>,
    _ writes: KeyPath<TransferRates, UInt64>
  ) -> DeviceMetric {
    DeviceMetric(
      .gauge, "device_throttle_\(unit)_per_second",
      "How fast the NBD clients of the disk may go, all of them together; none where it is no limit."
    ) { device in
      [("read", reads), ("write", writes)].compactMap { operation, rate in
        let value = device.info.throttle?[keyPath: rate] ?? 0
        return value > 0 ? .init(value, [("op", operation)]) : nil
      }
    }
  }

  private static func throttled(
    _ name: String, _ help: String, _ value: @escaping (DeviceStatistics.Waits) -> Double
  ) -> DeviceMetric {
    DeviceMetric(.counter, "device_throttle_\(name)_total", help) { device in
      guard let statistics = device.statistics else { return [] }
      return [
        .init(value(statistics.throttledReads), [("op", "read")]),
        .init(value(statistics.throttledWrites), [("op", "write")]),
      ]
    }
  }

  private static var recording: [DeviceMetric] {
    [
      DeviceMetric(
        .gauge, "tracking_dirty_clusters", "Clusters that were written and not handed out yet."
      ) { $0.tracking.map { [.init($0.dirty)] } ?? [] },
      pushBackup("push_backup_clusters", "Clusters that are to be copied.") {
        .init($0.clustersTotal)
      },
      pushBackup("push_backup_remaining_clusters", "Clusters that are not confirmed.") {
        .init($0.remaining)
      },
      pushBackup("push_backup_blocked_writes", "Writes that wait for the copier.") {
        .init($0.blockedWrites)
      },
      pushBackup("push_backup_spilled_bytes", "What was saved in the scratch file so far.") {
        .init($0.spilledBytes)
      },
      pushBackup("push_backup_longest_wait_seconds", "The longest that a write had to wait.") {
        .init(Double($0.longestWaitMilliseconds) / 1e3)
      },
      pushBackup("push_backup_failed", "1 for one that is over and has not been stopped.") {
        .init($0.state == .failed)
      },
      DeviceMetric(
        .gauge, "device_last_backup_timestamp_seconds",
        "The instant of the last backup that the next one can build on, in seconds since 1970."
      ) { device in
        device.checkpoints.compactMap { checkpoint in
          BackupCheckpoints.target(of: checkpoint.name).map {
            .init(checkpoint.createdAt, [("target", $0)])
          }
        }
      },
      checkpoint("checkpoint_dirty_bytes", "What may have been written since.") {
        .init($0.dirtyBytes)
      },
      checkpoint("checkpoint_consistent", "0 for one that says nothing any more.") {
        .init($0.inconsistency == nil)
      },
    ]
  }

  // MARK: Kinds of metrics

  private static func operations(
    _ name: String, _ help: String,
    _ sample: @escaping (DeviceStatistics.Operation) -> Metric.Sample
  ) -> DeviceMetric {
    DeviceMetric(.counter, name, help) { device in
      (device.statistics?.operations ?? []).map { operation, values in
        .init(sample(values).value, [("op", operation)])
      }
    }
  }

  private static func bytes(
    _ operation: String, _ values: KeyPath<DeviceStatistics, DeviceStatistics.Operation>
  ) -> DeviceMetric {
    counted(
      .counter, "device_\(operation)_bytes_total",
      "Bytes of requests with the operation \(operation) that succeeded."
    ) { .init($0[keyPath: values].bytes) }
  }

  private static func counted(
    _ kind: Metric.Kind, _ name: String, _ help: String,
    _ sample: @escaping (DeviceStatistics) -> Metric.Sample
  ) -> DeviceMetric {
    DeviceMetric(kind, name, help) { $0.statistics.map { [sample($0)] } ?? [] }
  }

  private static func pushBackup(
    _ name: String, _ help: String, _ sample: @escaping (PushBackupInfo) -> Metric.Sample
  ) -> DeviceMetric {
    DeviceMetric(.gauge, name, help) { $0.pushBackup.map { [sample($0)] } ?? [] }
  }

  private static func checkpoint(
    _ name: String, _ help: String, _ sample: @escaping (CheckpointInfo) -> Metric.Sample
  ) -> DeviceMetric {
    DeviceMetric(.gauge, name, help) { device in
      device.checkpoints.map { .init(sample($0).value, [("checkpoint", $0.name)]) }
    }
  }
}

extension DeviceStatistics {
  /// By the names under which they are shown.
  var operations: [(name: String, values: Operation)] {
    [
      ("read", read), ("write", write), ("flush", flush), ("trim", trim), ("zero", zero),
      ("cache", cache),
    ]
  }
}
