import Foundation
import PloopIO
import TestSupport
import Testing

@testable import PloopNBD

/// Reads that are answered with a file's pages (docs/locking.md, "Lent pages").
@Suite("Lent pages on the wire")
struct LentPagesTests {
  private static let size = 8 << 20

  /// A disk that lends, with numbers in it that tell their place.
  private struct Lender {
    let live: LiveServer
    let disk: MemoryExport
    let file: ImageFile
    let content: [UInt8]
    private let folder: TemporaryFolder

    init(piecesOf pieceBytes: Int = .max) throws {
      folder = try TemporaryFolder()
      file = try ImageFolder(path: folder.path).create("pages")
      let words = (0..<UInt32(LentPagesTests.size / 4)).map { $0 &* 2_654_435_761 }
      content = words.withUnsafeBytes { Array($0) }
      try file.write(AlignedBuffer(content).region, at: 0)
      disk = MemoryExport(size: LentPagesTests.size, lending: file, piecesOf: pieceBytes)
      #expect(disk.writeNow(AlignedBuffer(content).region, at: 0))
      live = try LiveServer([("disk", disk)])
    }

    var lent: Int { disk.lentCount.withLock { $0 } }

    /// Whether these bytes belong there; a million of them are nothing to print.
    func holds(_ bytes: [UInt8], at offset: Int) -> Bool {
      bytes.elementsEqual(content[offset..<min(content.count, offset + bytes.count)])
    }

    /// All that was lent has come back.
    func isWhole(within seconds: Int = 20) -> Bool {
      disk.loans.wait(until: .after(seconds: seconds)) { $0.isEmpty ? true : nil } ?? false
    }
  }

  private func joined(_ answer: RawClient.Answer, from offset: Int) throws -> [UInt8] {
    guard answer.isStructured else { return answer.data }
    var position = offset
    var bytes: [UInt8] = []
    for chunk in answer.chunks {
      try #require(chunk.type == 1)
      #expect(number(chunk.payload[..<8], as: Int.self) == position)
      bytes += chunk.payload[8...]
      position += chunk.payload.count - 8
    }
    #expect(answer.chunks.filter(\.isDone).count == 1)
    return bytes
  }

  @Test(
    "arrive as a copy would, and come back, in all kinds of replies",
    arguments: RawClient.Style.allCases)
  func arrive(style: RawClient.Style) throws {
    let lender = try Lender()
    let client = try lender.live.client(of: "disk", style: style)
    for (offset, length) in [(0, 64 << 10), (4096, 1 << 20), (512, 3 << 20), (0, Self.size)] {
      let answer = client.call(0, offset: UInt64(offset), length: UInt32(length))
      #expect(answer.error == 0)
      let bytes = try joined(answer, from: offset)
      #expect(bytes.count == length && lender.holds(bytes, at: offset))
    }
    #expect(lender.lent >= 4)
    #expect(lender.isWhole())
    // Small ones are copied.
    let before = lender.lent
    #expect(client.call(0, offset: 0, length: 32 << 10).error == 0)
    #expect(lender.lent == before)
  }

  @Test(
    "are mixed with copies where a read is in several pieces; a reply that cannot be split is whole"
  )
  func pieces() throws {
    let lender = try Lender(piecesOf: 96 << 10)
    let split = try lender.live.client(of: "disk")
    let offset = (96 << 10) - (64 << 10)
    // 64 KiB to the border, 96 KiB, and 32 KiB that are not worth lending.
    let answer = split.call(0, offset: UInt64(offset), length: 192 << 10)
    let bytes = try joined(answer, from: offset)
    #expect(bytes.count == 192 << 10 && lender.holds(bytes, at: offset))
    #expect(answer.chunks.map { $0.payload.count - 8 } == [64 << 10, 96 << 10, 32 << 10])
    #expect(lender.lent == 2)
    for client in [split, try lender.live.client(of: "disk", style: .simple)] {
      // NBD_CMD_FLAG_DF, which simple replies need not be told.
      let flags: UInt16 = client === split ? 4 : 0
      client.send(RawClient.request(0, offset: UInt64(offset), length: 192 << 10, flags: flags))
      let answer = client.answer(reading: 192 << 10)
      #expect(answer.chunks.count <= 1)
      let bytes = try joined(answer, from: offset)
      #expect(bytes.count == 192 << 10 && lender.holds(bytes, at: offset))
    }
    #expect(lender.lent == 2)
    #expect(lender.isWhole())
  }

  @Test("stay lent for as long as the client has not read them, and hold up nobody else")
  func unread() throws {
    let lender = try Lender()
    let deaf = try lender.live.client(of: "disk")
    // The server looks whether anything was taken when it receives something more.
    for count in 1...2 {
      deaf.send(RawClient.request(0, offset: 0, length: 256 << 10))
      #expect(becomes { lender.lent == count })
    }
    lender.disk.ticket.withLock { $0 = 2 }
    let other = try lender.live.client(of: "disk")
    for _ in 0..<20 {
      #expect(other.call(0, offset: 1 << 20, length: 1 << 20).error == 0)
      #expect(
        other.call(1, offset: 0, length: 4096, payload: [UInt8](repeating: 1, count: 4096)).error
          == 0)
    }
    // What the other one has read comes back; of the deaf one nothing does.
    #expect(
      lender.disk.loans.wait(until: .after(seconds: 20)) { $0[2] == nil ? true : nil } == true)
    #expect(lender.disk.loans.withLock { $0 == [1: 2] })
    for _ in 1...2 { #expect(lender.holds(try joined(deaf.answer(), from: 0), at: 0)) }
    #expect(lender.isWhole())
  }

  @Test("come back from a client that always has something unread, once it has read much more")
  func busy() throws {
    let lender = try Lender()
    let client = try lender.live.client(of: "disk")
    let request = RawClient.request(0, offset: 0, length: 1 << 20)
    client.send(request + request + request)
    #expect(try joined(client.answer(), from: 0).count == 1 << 20)
    lender.disk.ticket.withLock { $0 = 2 }
    // There is a reply in the socket at any time.
    var rounds = 0
    while lender.disk.loans.withLock({ $0[1] != nil }), rounds < 64 {
      client.send(request)
      #expect(try joined(client.answer(), from: 0).count == 1 << 20)
      rounds += 1
    }
    #expect(rounds < 64)
    for _ in 0..<2 { #expect(try joined(client.answer(), from: 0).count == 1 << 20) }
    #expect(lender.isWhole())
  }

  @Test("come back when the connection ends, read or not")
  func abandoned() throws {
    let lender = try Lender()
    do {
      let client = try lender.live.client(of: "disk")
      for _ in 0..<8 { client.send(RawClient.request(0, offset: 0, length: 4 << 20)) }
      #expect(becomes { lender.lent > 1 })
    }
    #expect(lender.isWhole())
  }

  @Test("are not sent over TCP, where nobody can tell whether they have been taken")
  func overTCP() throws {
    let lender = try Lender()
    let client = try RawClient(port: lender.live.port)
    #expect(client.enter("disk"))
    let answer = client.call(0, offset: 0, length: 2 << 20)
    let bytes = try joined(answer, from: 0)
    #expect(bytes.count == 2 << 20 && lender.holds(bytes, at: 0))
    #expect(lender.lent == 0)
  }

  @Test("of a file that has become shorter are zeroes from there on, as copies would be")
  func truncated() throws {
    let lender = try Lender()
    let client = try lender.live.client(of: "disk")
    // More than the socket holds: the last pieces are sent when the first have been read.
    client.send(RawClient.request(0, offset: 0, length: 8 << 20))
    #expect(becomes { lender.lent > 1 })
    try lender.file.truncate(to: 0)
    let bytes = try joined(client.answer(), from: 0)
    #expect(bytes.count == 8 << 20)
    // What had not been sent then of the piece that was on its way; what comes behind it is copied again.
    let zeroes = stride(from: 0, to: bytes.count, by: 4096).filter { start in
      bytes[start..<start + 4096].allSatisfy { $0 == 0 }
    }
    #expect(!zeroes.isEmpty && zeroes.count <= (1 << 20) / 4096)
    let isRest = (0..<bytes.count / 4096).allSatisfy { page in
      zeroes.contains(page * 4096)
        || lender.holds(Array(bytes[page * 4096..<page * 4096 + 4096]), at: page * 4096)
    }
    #expect(isRest)
    #expect(lender.isWhole())
  }

  @Test(
    "that cannot be read end the connection; from then on reads are copies, which can fail properly"
  )
  func unreadable() throws {
    let lender = try Lender()
    lender.disk.isBroken.withLock { $0 = true }
    let client = try lender.live.client(of: "disk")
    client.send(RawClient.request(0, offset: 0, length: 256 << 10))
    #expect(client.receive(1 << 20).count < 256 << 10)
    #expect(becomes { !lender.disk.lends.withLock { $0 } })
    let again = try lender.live.client(of: "disk")
    let bytes = try joined(again.call(0, offset: 0, length: 256 << 10), from: 0)
    #expect(bytes.count == 256 << 10 && lender.holds(bytes, at: 0))
    #expect(lender.lent == 1)
    #expect(lender.isWhole())
  }

  @Test("stay lent behind the end of a connection, as long as its client has not read them")
  func lingering() throws {
    let lender = try Lender()
    let client = try lender.live.client(of: "disk")
    // DISC: the server has nothing more to do for this client, which reads its replies all the same.
    client.send(RawClient.request(0, offset: 0, length: 256 << 10) + RawClient.request(2))
    #expect(
      becomes { lender.lent == 1 && lender.live.server.clients(of: Array("disk".utf8)).isEmpty })
    #expect(lender.disk.loans.withLock { $0 == [1: 1] })
    #expect(lender.holds(try joined(client.answer(), from: 0), at: 0))
    #expect(lender.isWhole())
  }
}
