internal import PloopFormat
package import PloopIO
internal import Synchronization

extension Device {
  /// Lends the pages of a range from its beginning on, as far as one file has them behind each other, if the page
  /// cache has them all.
  ///
  /// The borrower gives them back (``takeBack(_:count:)``) once nobody reads them any more; until then their
  /// clusters are not used for anything else (docs/locking.md, "Lent pages").
  ///
  /// - Parameters:
  ///   - least: fewer bytes than that are not worth it.
  ///   - files: what the borrower keeps open until it has sent what it borrows; references to it are
  ///     counted only when it changes.
  package func lendNow(
    _ count: Int, least: Int, at offset: UInt64, holding files: Borrowed<FileTable>?
  ) -> PageLending {
    let start = monotonicNanoseconds()
    guard lendsPages.load(ordering: .relaxed), let pass = gate.enterNow() else { return .nothing }
    defer { gate.leave(pass) }
    return withChain { chain in
      var pieces = Pieces(chain.geometry, offset: offset, count: count)
      guard let found = pieces.nextNow(in: map), found.count >= least, let place = found.place,
        let piece = chain.files.lendNow(place.delta, found.count, at: found.fileOffset)
      else { return .nothing }
      guard let files, files.isView(of: chain.files) else { return .needs(chain.files) }
      let ticket = gate.lend()
      counters.count(.read, at: offset, bytes: UInt64(piece.count), since: start)
      return .lent(PageLoan(piece, ticket: ticket))
    }
  }

  /// Lends nothing any more: pages could not be sent. A read that is copied tells its client why.
  package func stopLending() { lendsPages.store(false, ordering: .relaxed) }

  /// Nobody reads any more what was lent under this ticket.
  ///
  /// - Parameter count: so many loans.
  package func takeBack(_ ticket: UInt64, count: UInt64) { gate.takeBack(ticket, count: count) }
}
