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
