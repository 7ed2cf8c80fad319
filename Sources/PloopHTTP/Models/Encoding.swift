internal import PloopControl
internal import PloopFormat
internal import PloopJSON

// The service's values as JSON: names, order and units of the contract.

func time(_ seconds: Double) -> JSON { .string(Timestamp.text(seconds)) }

extension ExportInfo.Client {
  var json: JSON {
    .members([
      "id": .count(id), "peer": .string(peer), "since": time(since),
      "size": sizeBytes.map(JSON.count) ?? .null,
      "rx_bytes": .count(receivedBytes), "tx_bytes": .count(sentBytes),
      "tls": tls.map(JSON.string) ?? .null, "names": .array(names.map(JSON.string)),
      "headers": headers.map(JSON.string) ?? .null, "contexts": .array(contexts.map(JSON.string)),
      "requests": .count(requests), "in_flight": .integer(Int64(requestsInFlight)),
      "oldest_request_ms": oldestMilliseconds.map(JSON.count) ?? .null,
    ])
  }
}

extension ExportInfo {
  var json: JSON {
    .members([
      "name": .string(name), "device": .string(device), "readonly": .bool(readonly),
      "snapshot": snapshot.map(JSON.string) ?? .null, "description": .string(summary),
      "size": .count(sizeBytes),
      "uris": .array(uris.map(JSON.string)), "clients": .array(clients.map(\.json)),
      "access": access?.json ?? .null, "revision": .count(revision),
    ])
  }
}

extension ExportAccess {
  fileprivate var json: JSON {
    func list(_ texts: [String]?) -> JSON { texts.map { .array($0.map(JSON.string)) } ?? .null }
    return .members(["tls": .bool(tls), "names": list(names), "addresses": list(addresses)])
  }
}

extension DeltaInfo {
  var json: JSON {
    .members([
      "level": .integer(Int64(level)), "uuid": guid.map(JSON.string) ?? .null,
      "path": .string(path),
      "format": .string(isRaw ? "raw" : "ploop1"), "readonly": .bool(readonly),
      "top": .bool(isTop), "clusters": .count(clusters), "file_bytes": .count(fileBytes),
      "disk_bytes": .count(diskBytes),
    ])
  }
}

extension DeltaChanged {
  var json: JSON {
    .members([
      "delta": delta.json, "applied": applied.map { .integer(Int64($0)) } ?? .null,
      "skipped": skipped.map { .integer(Int64($0)) } ?? .null, "revision": .count(revision),
    ])
  }
}

extension SnapshotInfo {
  var json: JSON { .members(members) }

  var members: KeyValuePairs<String, JSON?> {
    [
      "uuid": .string(guid.description), "parent": parent.map { .string($0.description) } ?? .null,
      "children": .array(children.map { .string($0.description) }),
      "level": level.map { .integer(Int64($0)) } ?? .null, "in_chain": .bool(level != nil),
      "current": .bool(isCurrent), "temporary": .bool(isTemporary), "path": .string(path),
      "format": .string(isRaw ? "raw" : "ploop1"),
      "name": note.name.map(JSON.string) ?? .null,
      "description": note.summary.map(JSON.string) ?? .null,
      "labels": .object(
        note.labels.sorted { $0.key < $1.key }.map {
          JSON.Member(name: $0.key, value: .string($0.value))
        }),
      "protected": .bool(note.isProtected), "created_at": note.createdAt.map(time) ?? .null,
      "clusters": .count(clusters), "disk_bytes": .count(diskBytes),
      "exclusive_bytes": .count(exclusiveBytes), "deletable": .bool(refusal == nil),
      "deletable_reason": refusal.map(JSON.string) ?? .null,
    ]
  }
}

extension SnapshotMade {
  var json: JSON {
    var members = snapshot.members.compactMap { pair in
      pair.value.map { JSON.Member(name: pair.key, value: $0) }
    }
    members.append(
      JSON.Member(name: "pause_ns", value: pauseNanoseconds.map(JSON.count) ?? .null))
    members.append(JSON.Member(name: "revision", value: .count(revision)))
    return .object(members)
  }
}

extension DeviceInfo.Source {
  var json: JSON {
    switch self {
    case .deltas: .members(["kind": .string("deltas")])
    case .descriptor(let path, let snapshot):
      .members([
        "kind": .string("descriptor"), "path": .string(path),
        "at": snapshot.map(JSON.string) ?? .null,
      ])
    }
  }
}

extension DeviceInfo {
  var json: JSON {
    .members([
      "id": .string(id), "uuid": .string(uuid), "revision": .count(revision),
      "state": .string(state.rawValue), "size": .count(sizeBytes),
      "cluster_size": .count(clusterBytes), "version": .integer(Int64(version.rawValue)),
      "readonly": .bool(readonly), "suspended": .bool(suspended), "noresume": .bool(noresume),
      "suspension": suspension.map { suspension in
        .members([
          "holder": .string(suspension.holder), "since": time(suspension.since),
          "resumes_at": suspension.until.map(time) ?? .null,
        ])
      } ?? .null,
      "prohibition": prohibition.map { prohibition in
        .members(["holder": .string(prohibition.holder), "since": time(prohibition.since)])
      } ?? .null,
      "autostart": .bool(autostart), "throttle": throttle?.json ?? .null,
      "incoming": incoming.map(JSON.string) ?? .null,
      "labels": labelsJSON, "source": source.json, "deltas": .array(deltas.map(\.json)),
      "clusters": .members([
        "total": .count(clustersTotal), "mapped": .count(clustersMapped),
        "holes_in_top": .count(holesInTop),
      ]),
      "exports": .array(exports.map(\.json)),
      "stale_clients": .array(
        staleClients.map { stale in
          .members([
            "export": .string(stale.export), "id": .count(stale.client.id),
            "peer": .string(stale.client.peer),
            "size": stale.client.sizeBytes.map(JSON.count) ?? .null,
          ])
        }),
      "checkpoints": .array(checkpoints.map(JSON.string)),
      "bitmaps_in_image": .bool(bitmapsInImage), "repairs": .array(repairs.map(JSON.string)),
      "conditions": .array(conditions.map(\.json)),
      "maintenance": maintenance.map(\.json) ?? .null, "created_at": time(createdAt),
      "updated_at": time(updatedAt),
    ])
  }

  private var labelsJSON: JSON {
    .object(
      labels.sorted { $0.key < $1.key }.map { JSON.Member(name: $0.key, value: .string($0.value)) })
  }
}

extension DeviceInfo.Condition {
  var json: JSON {
    .members([
      "type": .string(type), "status": .string(isTrue ? "True" : "False"),
      "reason": .string(reason), "message": .string(message),
      "last_transition_at": time(since),
    ])
  }
}

extension DeviceMap {
  var json: JSON {
    .members([
      "runs": .array(
        runs.map { run in
          .members([
            "start": .count(run.start), "length": .count(run.length),
            "level": run.level.map { .integer(Int64($0)) } ?? .null,
            "image_cluster": run.imageCluster.map(JSON.count) ?? .null,
            "state": .string(run.state.rawValue),
          ])
        }), "next_offset": nextOffset.map(JSON.count) ?? .null, "revision": .count(revision),
    ])
  }
}

extension DeviceStatistics {
  var json: JSON {
    func operation(_ values: Operation) -> JSON {
      .members([
        "ops": .count(values.ops), "bytes": .count(values.bytes),
        "errors": .count(values.errors), "latency_ns_sum": .count(values.latencyNanoseconds),
        "latency_histogram": .array(values.histogram.map(JSON.count)),
      ])
    }
    return .members([
      "device": .string(device), "since": time(since),
      "boundaries_us": .array(boundariesMicroseconds.map(JSON.count)),
      "read": operation(read), "write": operation(write), "flush": operation(flush),
      "trim": operation(trim), "zero": operation(zero), "cache": operation(cache),
      "cow_clusters": .count(copyOnWriteClusters), "allocated_clusters": .count(allocatedClusters),
      "pauses": .count(pauses), "pause_ns_sum": .count(pauseNanoseconds),
      "pause_ns_max": .count(longestPauseNanoseconds),
      "recording_waits": .count(recordingWaits),
      "recording_wait_ns_sum": .count(recordingWaitNanoseconds),
      "backup_wait_ns_sum": .count(backupWaitNanoseconds),
      "throttle_read_waits": .count(throttledReads.count),
      "throttle_read_wait_ns_sum": .count(throttledReads.nanoseconds),
      "throttle_write_waits": .count(throttledWrites.count),
      "throttle_write_wait_ns_sum": .count(throttledWrites.nanoseconds),
      "in_flight": .count(inFlight), "clients": .count(clients),
      "idle_seconds": .number(idleSeconds), "revision": .count(revision),
    ])
  }
}

extension ServiceInfo {
  var json: JSON {
    .members([
      "product": .string("ploopd"), "version": .string(version), "api": .string("v1"),
      "node": .string(node), "started_at": time(startedAt), "revision": .count(revision),
      "features": .array(features.map(JSON.string)),
      "limits": .members([
        "max_devices": .integer(Int64(limits.maxDevices)),
        "max_read_only_deltas": .integer(Int64(limits.maxReadOnlyDeltas)),
        "max_connections": .integer(Int64(limits.maxConnections)),
        "max_watchers": .integer(Int64(limits.maxWatchers)),
        "max_event_clients": .integer(Int64(limits.maxEventClients)),
        "max_wait_seconds": .integer(Int64(limits.maxWaitSeconds)),
        "max_body_bytes": .integer(1 << 20),
      ]),
      "formats": .array(["ploop1-v1", "ploop1-v2", "raw-base"].map(JSON.string)),
      "roots": .array(
        roots.map {
          .members([
            "name": .string($0.name), "free_bytes": $0.freeBytes.map(JSON.count) ?? .null,
          ])
        }),
      "nbd": .array(
        nbd.map { .members(["uri": .string($0.uri), "tls": .string($0.tls)]) }),
    ])
  }
}

extension Readiness {
  var json: JSON {
    .members([
      "status": .string(isReady ? "ready" : "not_ready"),
      "checks": .array(
        checks.map {
          .members([
            "name": .string($0.name), "ok": .bool($0.ok), "detail": .string($0.detail),
          ])
        }),
    ])
  }
}
