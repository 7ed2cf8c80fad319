internal import PloopIO

extension Device {
  /// Everything that was replied to before this call is on stable storage when it returns.
  package func flush() throws(DeviceError) {
    guard !isReadOnly else { return }
    let start = monotonicNanoseconds()
    var waits = RequestWaits()
    let writing: Writing?
    do throws(DeviceError) {
      let pass = try admitted(&waits)
      defer { gate.leave(pass) }
      writing = chain.writing
      try waits.timing(\.flush) { () throws(DeviceError) in try writing?.index.flush() }
    } catch {
      counters.count(.flush, at: 0, bytes: 0, since: start, failed: true, waits: waits)
      throw error
    }
    counters.count(.flush, at: 0, bytes: 0, since: start, waits: waits)
    // Outside the gate, where this request would keep itself from being waited for.
    writing?.allocator.reap()
  }

  /// The second half of a durable write: what was written before is on stable storage when it
  /// returns. It counts as a part of that write, not as a flush.
  package func commit() throws(DeviceError) {
    // Outside the gate, as every durable request waits for its round (docs/locking.md). If the chain
    // has changed since the write, its change has flushed what was written.
    guard let writing = chain.writing else { return }
    let start = monotonicNanoseconds()
    do throws(DeviceError) { try writing.index.flush() } catch {
      counters.count(.write, at: 0, bytes: 0, since: start, failed: true)
      throw error
    }
  }

  /// For a timer: a guest that never flushes loses little. A failure shows in ``failure``.
  package func flushIfDirty() {
    guard let pass = gate.enterNow() else { return }
    let writing = chain.writing
    if let writing, writing.index.isDirty { try? writing.index.flush() }
    gate.leave(pass)
    writing?.allocator.reap()
  }
}
