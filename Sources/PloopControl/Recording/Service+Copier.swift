internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// What the copier of a push backup asks, and confirms.

extension Service {
  package func pushBackup(_ id: String) async throws(ServiceError) -> PushBackupInfo {
    PushBackupInfo(try session(of: id))
  }

  /// What guests wait for, and what is left; both are told again until they are confirmed.
  package func readPushBackup(
    _ id: String, uuid: String, limit: Int, left: (from: Int, limit: Int)
  ) async throws(ServiceError) -> PushBackupWork {
    let session = try session(of: id, uuid)
    let geometry = session.geometry
    return try answering { () throws(PushBackup.Refusal) in
      let pending = try session.backup.pending(limit: limit)
      let runs = try session.backup.left(from: left.from, limit: left.limit)
      let facts = session.backup.facts
      return PushBackupWork(
        pending: pending.map { cluster in
          let offset = UInt64(cluster.cluster) * geometry.clusterBytes
          return PushBackupWork.Cluster(
            cluster: cluster.cluster, offset: offset,
            length: min(geometry.clusterBytes, geometry.sizeBytes - offset),
            waitingMilliseconds: cluster.waitingNanoseconds / 1_000_000)
        },
        left: runs, remaining: facts.remaining, blockedWrites: facts.blockedWrites)
    }
  }

  /// - Returns: how many were not confirmed before, and how many are left.
  package func confirmPushBackup(
    _ id: String, uuid: String, _ clusters: [Range<Int>]
  ) async throws(ServiceError) -> (confirmed: Int, remaining: Int) {
    let backup = try session(of: id, uuid).backup
    let confirmed = try answering { () throws(PushBackup.Refusal) in
      try backup.confirm(clusters)
    }
    let remaining = backup.facts.remaining
    if remaining == 0 { waiting.changed([.pushBackup(id)]) }
    return (confirmed, remaining)
  }

  /// Bytes of the frozen disk.
  package func pushBackupData(
    _ id: String, uuid: String?, _ range: ClosedRange<UInt64>
  ) async throws(ServiceError) -> (bytes: [UInt8], size: UInt64) {
    let session = try session(of: id, uuid)
    let size = session.geometry.sizeBytes
    guard range.upperBound < size, range.count <= PushBackupInfo.mostBytes else {
      throw ServiceError(
        .rangeInvalid, "the disk has \(size) bytes, and a part at most \(PushBackupInfo.mostBytes)")
    }
    return (
      try await session.backup.bytes(at: range.lowerBound, range.count, on: engine), size
    )
  }

  func session(
    of id: String, _ uuid: String? = nil
  ) throws(ServiceError) -> PushBackupSession {
    guard case .pushBackup(let session) = try controller(id).now.maintenance else {
      throw ServiceError(
        .pushBackupNotActive, "the device \(id) has no push backup", errno: "EBADF")
    }
    guard let uuid, uuid != session.backup.uuid else { return session }
    throw ServiceError(
      .pushBackupUUIDMismatch, "the push backup of \(id) is \(session.backup.uuid)",
      errno: "EINVAL")
  }
}

extension PushBackup {
  /// Bytes of the frozen disk, read by one of the engine's threads.
  func bytes(
    at offset: UInt64, _ count: Int, on engine: IOEngine
  ) async throws(ServiceError) -> [UInt8] {
    let result: Result<[UInt8], PushBackup.Refusal> = await withCheckedContinuation { answer in
      engine.submit {
        let buffer = AlignedBuffer(count: count)
        do throws(PushBackup.Refusal) {
          try self.read(into: buffer.region, at: offset)
          answer.resume(returning: .success(buffer.region.bytes))
        } catch { answer.resume(returning: .failure(error)) }
      }
    }
    return try answering { () throws(PushBackup.Refusal) in try result.get() }
  }
}

/// Asks a backup and converts its refusals.
private func answering<Result>(
  _ body: () throws(PushBackup.Refusal) -> Result
) throws(ServiceError) -> Result {
  do throws(PushBackup.Refusal) { return try body() } catch {
    switch error {
    case .over: throw ServiceError(.pushBackupExpired, error.words, errno: "ESTALE")
    case .outOfRange: throw ServiceError(.clusterOutOfRange, error.words, errno: "E2BIG")
    case .released(let cluster):
      throw ServiceError(
        .clusterReleased, error.words, facts: ["cluster": .number(UInt64(cluster))])
    case .rotten(let cluster, let detail): throw ServiceError(rotten: cluster, detail)
    case .failed: throw ServiceError(.ioError, error.words, errno: "EIO")
    }
  }
}
