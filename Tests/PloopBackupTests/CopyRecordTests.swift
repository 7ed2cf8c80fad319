import Glibc
import TestSupport
import Testing

@testable import PloopBackup
@testable import PloopIO

@Suite("What of a copy counts")
struct CopyRecordTests {
  @Test("whoever writes behind a failure is told what it was, not only that there was one")
  func failed() throws {
    let folder = try TemporaryFolder()
    let file = JournalFile(folder: try ImageFolder(path: folder.path), name: "journal")
    try file.create()
    let record = CopyRecord(StepJournal(), in: file, of: "export")
    let isFull = BackupError(.outOfSpace, "export: no space left")
    #expect(kind { try record.attempt { () throws(BackupError) in throw isFull } } == .outOfSpace)
    #expect(kind { try record.attempt { () throws(BackupError) in } } == .outOfSpace)
    // Not even its end hides it.
    record.end()
    #expect(kind { try record.attempt { () throws(BackupError) in } } == .outOfSpace)
    let ended = CopyRecord(StepJournal(), in: file, of: "export")
    ended.end()
    #expect(kind { try ended.attempt { () throws(BackupError) in } } == .failed)
  }
}
