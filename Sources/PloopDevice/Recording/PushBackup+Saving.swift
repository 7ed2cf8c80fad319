internal import PloopFormat
internal import PloopIO

// What requests do of a backup with a scratch file before they overwrite a cluster.

extension PushBackup {
  /// Saves what is held of a range, so that it may be overwritten.
  ///
  /// - Returns: false when there is no scratch file, or no room in it.
  func save(_ clusters: ClosedRange<Int>) -> Bool {
    guard let scratch = options.scratch else { return false }
    while case .save(let cluster)? = state.wait({ $0.takeTurn(clusters) }) {
      do throws(DeviceError) {
        guard try save(cluster, scratch) else {
          state.update { $0.giveUpTurn(cluster) }
          return false
        }
      } catch {
        state.update { $0.giveUpTurn(cluster) }
        end(.failed("cluster \(cluster) cannot be saved: \(error.detail)"))
      }
    }
    return true
  }

  /// It is held until its bytes are in the file: nobody changes what is read here.
  private func save(_ cluster: Int, _ scratch: Scratch) throws(DeviceError) -> Bool {
    let geometry = device.geometry
    let start = UInt64(cluster) << UInt64(geometry.clusterShift)
    let length = min(geometry.clusterBytes, geometry.sizeBytes - start)
    let run = try device.runs(offset: start, length: length, limit: 1).first
    guard run?.level != nil else {
      _ = state.update { $0.saved(cluster, at: nil, bytes: 0) }
      return true
    }
    guard let slot = scratch.take() else { return false }
    do throws(DeviceError) {
      let buffer = AlignedBuffer(count: Int(min(length, Device.copyBytes)))
      for offset in stride(from: 0, to: length, by: buffer.count) {
        let part = buffer.region.slice(0, Int(min(UInt64(buffer.count), length - offset)))
        var holes = HoleList()
        try device.read(into: part, at: start + offset, holes: &holes)
        try converting { () throws(IOError) in
          try scratch.write(part, slot: slot, offset: offset)
        }
      }
    } catch {
      guard error.lacksRoom else {
        scratch.give([slot])
        throw error
      }
      scratch.giveUp(slot)
      return false
    }
    let isWanted = state.update { $0.saved(cluster, at: slot, bytes: length) }
    if !isWanted { scratch.give([slot]) }
    return true
  }
}
