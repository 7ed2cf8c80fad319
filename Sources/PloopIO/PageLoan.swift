internal import Glibc

/// A range of an open file.
package struct FilePiece: Sendable {
  package let descriptor: Int32
  package let offset: UInt64
  package let count: Int

  /// What is left behind the first bytes.
  package func dropping(_ bytes: Int) -> FilePiece {
    let dropped = min(bytes, count)
    return FilePiece(
      descriptor: descriptor, offset: offset + UInt64(dropped), count: count - dropped)
  }
}

extension FilePiece {
  /// The bytes, read as a copy would be: what lies beyond the end of the file is zero.
  ///
  /// - Returns: nil when they cannot be read.
  package func copied() -> ByteRegion? {
    let region = AlignedBuffer(unfilled: count).region
    var done = 0
    while done < count {
      let read = pread(descriptor, region.start + done, count - done, off_t(offset) + off_t(done))
      if read < 0, errno == EINTR { continue }
      guard read >= 0 else { return nil }
      if read == 0 { break }
      done += read
    }
    region.slice(done, count - done).zero()
    return region
  }
}

/// Pages of a file that a socket is to have; whoever lends them wants to know when it has no more.
package struct PageLoan: Sendable {
  package let piece: FilePiece
  /// For the lender, when it is given back.
  package let ticket: UInt64

  package init(_ piece: FilePiece, ticket: UInt64) {
    self.piece = piece
    self.ticket = ticket
  }
}

/// What comes of asking for pages.
package enum PageLending: Sendable {
  case lent(PageLoan)
  /// The borrower has to keep these files open, and ask again.
  case needs(FileTable)
  /// There is nothing to be lent: the bytes have to be copied.
  case nothing
}
