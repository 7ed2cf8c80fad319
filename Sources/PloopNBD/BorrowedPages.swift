internal import PloopIO

/// What one connection has borrowed: pages that are on their way to the client, or in its socket.
///
/// All files of a disk are kept open at once, for as long as a piece of one has not been sent: so a request
/// counts no references.
struct BorrowedPages {
  /// Loans with the same ticket.
  struct Loans {
    let ticket: UInt64
    let count: UInt64
    /// How many bytes the connection had sent with the last of them.
    fileprivate let end: UInt64
  }

  private var files: FileTable?
  private(set) var holding: Borrowed<FileTable>?
  private var unsent = 0
  /// Those with other tickets, oldest first; empty but when somebody waits for what was lent.
  private var older: [Loans] = []
  private var latest: Loans?

  /// Whether the client may still read pages that are not ours.
  var isEmpty: Bool { latest == nil && older.isEmpty }

  /// Keeps these files open from now on.
  ///
  /// - Returns: false when pieces of others have to be sent first.
  mutating func hold(_ table: FileTable) -> Bool {
    guard unsent == 0 else { return false }
    files = table
    holding = Borrowed(table)
    return true
  }

  /// A connection that is idle keeps nobody's files open.
  mutating func letFilesGo() {
    guard unsent == 0, files != nil else { return }
    files = nil
    holding = nil
  }

  mutating func begin() { unsent += 1 }

  /// - Parameter end: bytes sent so far, the loan's among them.
  mutating func sent(_ loan: PageLoan, end: UInt64) {
    unsent -= 1
    if let latest, latest.ticket != loan.ticket { older.append(latest) }
    let before = latest?.ticket == loan.ticket ? latest?.count ?? 0 : 0
    latest = Loans(ticket: loan.ticket, count: before + 1, end: end)
  }

  /// The next loans that can be given back.
  ///
  /// - Parameter limit: their last byte is among the first so many that were sent.
  mutating func takeReturned(before limit: UInt64) -> Loans? {
    if let first = older.first {
      return first.end <= limit ? older.removeFirst() : nil
    }
    guard let last = latest, last.end <= limit else { return nil }
    latest = nil
    return last
  }
}
