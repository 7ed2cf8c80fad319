internal import PloopIO

/// What is held, saved and waited for.
struct PushBackupState {
  private struct Request {
    let number: UInt64
    let clusters: ClosedRange<Int>
    let since: UInt64
  }

  /// Not to be overwritten.
  private(set) var held: Bitmap
  /// Not confirmed.
  private(set) var wanted: Bitmap
  private(set) var remaining: Int
  /// All that were wanted in the beginning.
  let asked: Bitmap
  let total: Int
  let fullReason: String?
  /// Saved and not confirmed: the place in the scratch file, nil for a cluster that was not there.
  private(set) var saved: [Int: Int?] = [:]
  /// Those of them that were not there.
  private var absent: Bitmap
  private(set) var savedBytes: UInt64 = 0
  private(set) var end: PushBackup.End?
  private var saving: Set<Int> = []
  /// In the order in which they began to wait.
  private var requests: [Request] = []
  private var lastNumber: UInt64 = 0
  var longestWait: UInt64 = 0
  /// Deadlines that were put off, since the disk was suspended when they came.
  var prolonged = 0

  init(_ wanted: Bitmap, fullReason: String? = nil) {
    self.fullReason = fullReason
    held = wanted
    self.wanted = wanted
    asked = wanted
    absent = Bitmap(count: wanted.count)
    total = wanted.setCount
    remaining = total
  }

  func isFree(_ clusters: ClosedRange<Int>) -> Bool { firstHeld(clusters) == nil }

  /// Whether a cluster is known to have been absent at the instant, and up to which one the same holds.
  ///
  /// - Parameter isAbsent: whether it, and all up to `last`, is absent now.
  func absence(of cluster: Int, isAbsent: Bool, through last: Int) -> (isKnown: Bool, end: Int) {
    func isKnown(_ cluster: Int) -> Bool { absent[cluster] || isAbsent && held[cluster] }
    let result = isKnown(cluster)
    var end = cluster
    while end <= last, isKnown(end) == result {
      let next: Int?
      if absent[end] {
        next = absent.firstClear(from: end)
      } else if isAbsent, held[end] {
        next = held.firstClear(from: end)
      } else {
        let known = [absent.firstSet(from: end), isAbsent ? held.firstSet(from: end) : nil]
        next = known.compactMap { $0 }.min()
      }
      end = next ?? last + 1
    }
    return (result, min(end, last + 1))
  }

  private func firstHeld(_ clusters: ClosedRange<Int>) -> Int? {
    guard end == nil, let first = held.firstSet(from: clusters.lowerBound),
      first <= clusters.upperBound
    else { return nil }
    return first
  }

  // MARK: Waiting

  mutating func park(_ clusters: ClosedRange<Int>, since start: UInt64) -> UInt64 {
    lastNumber += 1
    requests.append(Request(number: lastNumber, clusters: clusters, since: start))
    return lastNumber
  }

  mutating func leave(_ number: UInt64) { requests.removeAll { $0.number == number } }

  var waiting: Int { requests.count }

  /// What is waited for, in the order in which requests began to, each cluster once.
  func pending(limit: Int) -> [(cluster: Int, since: UInt64)] {
    var found: [(cluster: Int, since: UInt64)] = []
    var seen: Set<Int> = []
    for request in requests {
      var from = request.clusters.lowerBound
      while found.count < limit, from <= request.clusters.upperBound,
        let cluster = firstHeld(from...request.clusters.upperBound)
      {
        if seen.insert(cluster).inserted { found.append((cluster, request.since)) }
        from = cluster + 1
      }
    }
    return found
  }

  // MARK: Saving

  /// What a request that saves has to do next.
  enum Turn {
    case save(Int)
    case nothing
  }

  /// - Returns: nil while somebody else saves the next one.
  mutating func takeTurn(_ clusters: ClosedRange<Int>) -> Turn? {
    guard let cluster = firstHeld(clusters) else { return .nothing }
    return saving.insert(cluster).inserted ? .save(cluster) : nil
  }

  mutating func giveUpTurn(_ cluster: Int) { saving.remove(cluster) }

  /// - Returns: false when nobody wants it any more.
  mutating func saved(_ cluster: Int, at slot: Int?, bytes: UInt64) -> Bool {
    saving.remove(cluster)
    guard end == nil, wanted[cluster] else { return false }
    held[cluster] = false
    saved.updateValue(slot, forKey: cluster)
    absent[cluster] = slot == nil
    savedBytes += bytes
    return true
  }

  // MARK: Confirming

  /// - Returns: how many were not confirmed before, and places in the scratch file that are free now.
  mutating func confirm(_ clusters: Range<Int>) -> (count: Int, slots: [Int]) {
    var count = 0
    var slots: [Int] = []
    var from = clusters.lowerBound
    while let cluster = wanted.firstSet(from: from), cluster < clusters.upperBound {
      wanted[cluster] = false
      held[cluster] = false
      absent[cluster] = false
      if let slot = saved.removeValue(forKey: cluster) ?? nil { slots.append(slot) }
      count += 1
      from = cluster + 1
    }
    remaining -= count
    return (count, slots)
  }

  /// - Returns: whether it was not over yet.
  mutating func end(_ end: PushBackup.End) -> Bool {
    guard self.end == nil else { return false }
    self.end = end
    saved = [:]
    return true
  }
}
