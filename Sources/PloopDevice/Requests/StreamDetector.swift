internal import PloopIO

/// Finds readers that go through the disk in order, among reads that had to wait for it, and tells
/// what they will want next.
///
/// The kernel is told not to read ahead in the top (``ImageFile/expectRandomAccess()``), so this does:
/// a stream waits once for each window, which doubles until it is `mostBytes` long.
final class StreamDetector: Sendable {
  private static let streams = 4
  private static let firstBytes: UInt64 = 256 << 10
  private static let mostBytes: UInt64 = 4 << 20
  /// Requests of one reader overtake each other by as much.
  private static let slackBytes: UInt64 = 1 << 20

  private struct Stream {
    /// Where the stream's last miss ended, and what has been asked for ahead of it.
    var end: UInt64
    var ahead: UInt64
    var windowBytes: UInt64
  }

  private let state = Locked<[Stream]>([])

  /// - Returns: what to read ahead, now that a read of this range has missed the page cache.
  func missed(offset: UInt64, length: UInt64) -> Range<UInt64>? {
    let end = offset + length
    return state.withLock { streams in
      let slack = StreamDetector.slackBytes
      guard
        let index = streams.firstIndex(where: {
          offset + slack >= $0.end && offset <= $0.ahead + slack
        })
      else {
        if streams.count == StreamDetector.streams { streams.removeFirst() }
        streams.append(
          Stream(end: end, ahead: end, windowBytes: StreamDetector.firstBytes))
        return nil
      }
      // The stream that was used last is the last to go.
      var stream = streams.remove(at: index)
      defer { streams.append(stream) }
      stream.end = max(stream.end, end)
      guard end + stream.windowBytes / 2 > stream.ahead else { return nil }
      let start = max(stream.ahead, end)
      stream.ahead = start + stream.windowBytes
      stream.windowBytes = min(stream.windowBytes * 2, StreamDetector.mostBytes)
      return start..<stream.ahead
    }
  }
}
