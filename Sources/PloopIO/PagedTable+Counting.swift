internal import Synchronization

// How many words of each page differ from the default, in memory or not.

extension PagedTable {
  func note(_ count: Int, in slot: UnsafeMutablePointer<Slot>) {
    let old = slot.pointee.mapped.exchange(
      UInt16(truncatingIfNeeded: count), ordering: .acquiringAndReleasing)
    let before = old == Slot.unknown ? 0 : UInt64(old)
    mapped.wrappingAdd(UInt64(count) &- before, ordering: .relaxed)
  }

  /// Notes what is known of a page that is not in memory: that so many more of its words differ from the default.
  package func addMapped(_ count: Int, page: Int) {
    pool.state.withLock { _ in
      let slot = madeSlot(page)
      let old = slot.pointee.mapped.load(ordering: .relaxed)
      note(min(PagedTable.pageWords, (old == Slot.unknown ? 0 : Int(old)) + count), in: slot)
    }
  }

  /// Nobody knows any more how many words of a page that is not in memory differ from the default. In one step:
  /// whoever looks meanwhile does not take a page for empty that is not.
  package func forgetMapped(page: Int) {
    pool.state.withLock { _ in
      let slot = madeSlot(page)
      guard Slot.frame(of: slot.pointee.place.load(ordering: .relaxed)) == nil else { return }
      let old = slot.pointee.mapped.exchange(Slot.unknown, ordering: .acquiringAndReleasing)
      if old != Slot.unknown { mapped.wrappingSubtract(UInt64(old), ordering: .relaxed) }
    }
  }

  /// Counts a page that nobody has counted.
  package func countMapped(_ count: Int, page: Int, _ stamp: Stamp) {
    pool.state.withLock { _ in
      guard isCurrent(stamp, page: page), let slot = slot(page),
        slot.pointee.mapped.load(ordering: .relaxed) == Slot.unknown
      else { return }
      note(count, in: slot)
    }
  }

  /// Pages that nobody has counted.
  package func uncountedPages() -> [Int] {
    (0..<pageCount).filter { page in
      slot(page).map { $0.pointee.mapped.load(ordering: .relaxed) == Slot.unknown } ?? false
    }
  }
}
