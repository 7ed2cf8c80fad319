internal import PloopDevice
internal import PloopIO
internal import PloopNBD

// Everything that is measured, as it is now.

extension Service {
  package func metrics() async -> [Metric] {
    let controllers = state.withLock { $0.devices.values.sorted { $0.id < $1.id } }
      .filter { $0.now.record != nil }
    let devices = controllers.map(measures)
    return await serviceMetrics(devices.map(\.info.state))
      + DeviceMetric.all.map { $0.metric(of: devices) } + [
        clientMetric(devices), handshakeMetric(), brokenMetric(),
      ]
      + indexMetrics() + jobMetrics() + [backupMetric(), targetMetric(), store.metric]
      + imageMetrics()
      + ProcessMetrics.now()
  }

  private func measures(of controller: DeviceController) -> DeviceMeasures {
    let facts = controller.now
    var measures = DeviceMeasures(info: info(of: controller.id, facts), checkpoints: [])
    if let device = try? controller.device() {
      measures.statistics = statistics(of: device, controller)
      measures.checkpoints = device.checkpoints.map { info(of: $0, device, controller) }
    }
    switch facts.maintenance {
    case .tracking(let tracker, _)?: measures.tracking = TrackingInfo(tracker)
    case .pushBackup(let session)?: measures.pushBackup = PushBackupInfo(session)
    case nil:
      measures.pushBackup = frozen.withLock { $0[controller.id] }.map {
        PushBackupInfo(PushBackupSession($0))
      }
    }
    return measures
  }

  private func serviceMetrics(_ states: [DeviceState]) async -> [Metric] {
    [
      Metric(
        .gauge, "ploopd_build_info", "Always 1; the label says which version runs.",
        [.init(true, [("version", ProductVersion.current)])]),
      Metric(
        .gauge, "ploopd_start_time_seconds", "When the service began, in seconds since 1970.",
        startedAt),
      Metric(
        .gauge, "ploopd_ready", "1 when all disks are back and requests are served.",
        await readiness().isReady ? 1 : 0),
      Metric(
        .gauge, "ploopd_devices", "Devices, by state.",
        DeviceState.allCases.map { state in
          .init(states.count { $0 == state }, [("state", state.rawValue)])
        }),
      Metric(
        .gauge, "ploopd_root_free_bytes", "What is free where images may lie.",
        roots.names.compactMap { name in
          roots.freeBytes(of: name).map { .init($0, [("root", name)]) }
        }),
    ]
  }

  private func indexMetrics() -> [Metric] {
    let values = indexCache.values
    return [
      Metric(
        .gauge, "ploopd_index_cache_budget_bytes",
        "Memory for the indexes of all disks together.", Double(values.budgetBytes)),
      Metric(
        .gauge, "ploopd_index_cache_resident_bytes", "What indexes take of it.",
        Double(values.residentBytes)),
      Metric(
        .gauge, "ploopd_index_cache_pinned_bytes",
        "What of that has to stay, since it is not in the files yet.", Double(values.pinnedBytes)),
      Metric(
        .counter, "ploopd_index_cache_hits_total", "Clusters that were found in memory.",
        Double(values.hits)),
      Metric(
        .counter, "ploopd_index_cache_misses_total", "Clusters that were looked up in the files.",
        Double(values.misses)),
      Metric(
        .counter, "ploopd_index_cache_loads_total", "Pages that were read into memory.",
        Double(values.loads)),
      Metric(
        .counter, "ploopd_index_cache_evictions_total", "Pages that had to make room for others.",
        Double(values.evictions)),
    ]
  }

  private func clientMetric(_ devices: [DeviceMeasures]) -> Metric {
    Metric(
      .gauge, "ploopd_nbd_clients", "Clients that are connected.",
      devices.flatMap { device in
        device.info.exports.map {
          .init($0.clients.count, [("export", $0.name), ("device", device.info.id)])
        }
      })
  }

  private func brokenMetric() -> Metric {
    let count = state.withLock { $0.listeners.reduce(0) { $0 &+ $1.security.broken } }
    return Metric(
      .counter, "ploopd_nbd_tls_broken_total",
      "NBD clients of whom something came that was changed on its way, or is no TLS.",
      [.init(count, [])])
  }

  private func handshakeMetric() -> Metric {
    let counts = state.withLock { $0.listeners.map(\.security.handshakes) }
    return Metric(
      .counter, "ploopd_nbd_tls_handshakes_total", "Handshakes of NBD clients that wanted TLS.",
      [
        .init(counts.reduce(0) { $0 &+ $1.done }, [("result", "done")]),
        .init(counts.reduce(0) { $0 &+ $1.failed }, [("result", "failed")]),
      ])
  }

  private func backupMetric() -> Metric {
    let done = backedUp.withLock { $0 }.sorted { $0.key < $1.key }
    return Metric(
      .counter, "ploopd_backup_bytes_total", "What backups have read and written.",
      done.flatMap { target, bytes in
        [("read", bytes.read), ("written", bytes.written)].map { direction, count in
          Metric.Sample(count, [("target", target), ("direction", direction)])
        }
      })
  }

  /// As targets were found last, since whoever collects metrics does not wait for them; they are looked at again
  /// when that was some time ago. Of an NBD server only jobs find out.
  private func targetMetric() -> Metric {
    for name in targets.notLookedAt(since: Service.targetsFreshNanoseconds) {
      Task { _ = try? await self.target(name) }
    }
    return Metric(
      .gauge, "ploopd_target_up", "1 for a target that could be used when it was looked at last.",
      targets.reachability.map { name, isReachable in .init(isReachable, [("target", name)]) })
  }

  private static let targetsFreshNanoseconds: UInt64 = 30_000_000_000

  // MARK: Jobs

  private func jobMetrics() async -> [Metric] {
    let open = jobs.state.withLock { Array($0.jobs.values) }
    let active = open.filter(\.state.isActive).map(info).sorted { $0.record.id < $1.record.id }
    return [
      Metric(
        .gauge, "ploopd_jobs", "Jobs that are not over, by type and state.",
        JobMetrics.counted(open.map { [("type", $0.type), ("state", $0.state.rawValue)] })),
      Metric(
        .counter, "ploopd_jobs_finished_total", "Jobs that have ended in this life of the service.",
        jobs.finished.withLock { $0 }.sorted { $0.key < $1.key }.map { end, count in
          .init(count, [("type", end.type), ("outcome", end.outcome.rawValue)])
        }),
      Metric(
        .histogram, "ploopd_job_duration_seconds",
        "How long jobs took that have ended, from when they began.",
        jobs.durations.withLock { $0 }.sorted { $0.key < $1.key }.map { type, durations in
          .init(.histogram(durations), [("type", type)])
        }),
      Metric(
        .gauge, "ploopd_job_progress_ratio", "How far a running job is, from 0 to 1.",
        active.map { .init($0.record.progress.ratio, JobMetrics.labels($0.record)) }),
      Metric(
        .gauge, "ploopd_job_last_progress_timestamp_seconds",
        "When a running job came further last, in seconds since 1970.",
        active.compactMap { job in
          job.record.progress.lastProgressAt.map { .init($0, JobMetrics.labels(job.record)) }
        }),
      Metric(
        .gauge, "ploopd_job_queue_oldest_seconds", "For how long the oldest queued job has waited.",
        await queue().oldestQueuedAt.map { max(0, wallClockSeconds() - $0) } ?? 0),
    ]
  }
}

private enum JobMetrics {
  static func labels(_ job: JobRecord) -> Metric.Labels {
    [("job_id", job.id), ("type", job.type), ("device", job.device ?? "")]
  }

  /// How often each set of labels is there.
  static func counted(_ all: [Metric.Labels]) -> [Metric.Sample] {
    Dictionary(grouping: all) { $0.map { "\($0.name)=\($0.value)" } }
      .sorted { $0.key.lexicographicallyPrecedes($1.key) }
      .compactMap { _, same in same.first.map { .init(same.count, $0) } }
  }
}

extension JobProgress {
  fileprivate var ratio: Double {
    if totalBytes > 0 { return min(1, Double(doneBytes) / Double(totalBytes)) }
    if totalClusters > 0 { return min(1, Double(doneClusters) / Double(totalClusters)) }
    return 0
  }
}
