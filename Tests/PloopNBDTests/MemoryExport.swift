import Glibc
import PloopIO
import PloopNBD
import TestSupport

/// A disk in memory whose clusters of 64 KiB exist once written, for tests of the protocol.
final class MemoryExport: Export {
  static let clusterBytes = 65536
  let size: UInt64
  let isReadOnly: Bool
  let preferredBlockSize: UInt32 = 4096
  let summary = "in memory"
  /// Whether quick ways are refused, so that everything goes through the engine.
  let isSlow: Bool
  private let memory: AlignedBuffer
  private let written: Locked<Set<Int>>

  init(size: Int, isReadOnly: Bool = false, isSlow: Bool = false) {
    self.size = UInt64(size)
    self.isReadOnly = isReadOnly
    self.isSlow = isSlow
    memory = AlignedBuffer(count: size)
    written = Locked([])
  }

  func readNow(into region: ByteRegion, at offset: UInt64, holes: inout HoleList) -> Bool {
    guard !isSlow else { return false }
    copyOut(region, offset, &holes)
    return true
  }

  func read(into region: ByteRegion, at offset: UInt64, holes: inout HoleList) throws(NBDError) {
    copyOut(region, offset, &holes)
  }

  private func copyOut(_ region: ByteRegion, _ offset: UInt64, _ holes: inout HoleList) {
    region.copy(from: memory.region.slice(Int(offset), region.count))
    var position = 0
    while position < region.count {
      let place = Int(offset) + position
      let end = min(
        region.count, position + MemoryExport.clusterBytes - place % MemoryExport.clusterBytes)
      if !written.withLock({ $0.contains(place / MemoryExport.clusterBytes) }) {
        holes.append(start: position, count: end - position)
      }
      position = end
    }
  }

  func writeNow(_ region: ByteRegion, at offset: UInt64) -> Bool {
    guard !isSlow else { return false }
    copyIn(region, offset)
    return true
  }

  func write(_ region: ByteRegion, at offset: UInt64, durable: Bool) throws(NBDError) {
    copyIn(region, offset)
  }

  private func copyIn(_ region: ByteRegion, _ offset: UInt64) {
    guard region.count > 0 else { return }
    memory.region.copy(from: region, at: Int(offset))
    let first = Int(offset) / MemoryExport.clusterBytes
    let last = (Int(offset) + region.count - 1) / MemoryExport.clusterBytes
    written.withLock { $0.formUnion(first...last) }
  }

  func flush() throws(NBDError) {}

  func trim(offset: UInt64, length: UInt64, durable: Bool) throws(NBDError) {}

  func writeZeroes(
    offset: UInt64, length: UInt64, mode: ZeroMode, durable: Bool
  ) throws(NBDError) {
    guard !mode.contains(.onlyIfFast) else { throw NBDError(.notSupported, "not fast") }
    memory.region.slice(Int(offset), Int(length)).zero()
  }

  func cache(offset: UInt64, length: UInt64) throws(NBDError) {}

  func extents(offset: UInt64, length: UInt64, limit: Int) throws(NBDError) -> [Extent] {
    var extents: [Extent] = []
    var position = offset
    let written = self.written.withLock { $0 }
    while position < offset + length {
      let cluster = UInt64(MemoryExport.clusterBytes)
      let end = min(offset + length, (position / cluster + 1) * cluster)
      let isHole = !written.contains(Int(position / cluster))
      if extents.last?.isHole == isHole {
        extents[extents.count - 1].length += end - position
      } else if extents.count == limit {
        break
      } else {
        extents.append(Extent(length: end - position, isHole: isHole, readsZero: isHole))
      }
      position = end
    }
    return extents
  }
}

final class MemoryDirectory: ExportDirectory {
  private let doors: [([UInt8], MemoryExport)]

  init(_ doors: [(String, MemoryExport)]) { self.doors = doors.map { (Array($0.0.utf8), $0.1) } }

  func list() -> [(name: [UInt8], summary: String)] { doors.map { ($0.0, $0.1.summary) } }

  func export(named name: [UInt8]) throws(NBDError) -> MemoryExport? {
    doors.first { $0.0 == name }?.1
  }
}

/// A server over disks in memory, on a Unix socket in a folder of its own.
final class LiveServer {
  let folder: TemporaryFolder
  let path: String
  let server: Server<MemoryDirectory>
  let engine = IOEngine()

  init(_ doors: [(String, MemoryExport)], limits: Limits = Limits()) throws {
    folder = try TemporaryFolder()
    path = "\(folder.path)/nbd.sock"
    server = Server(directory: MemoryDirectory(doors), engine: engine, limits: limits)
    try server.listen(on: .unix(path: path))
  }

  func uri(_ name: String) -> String { "nbd+unix:///\(name)?socket=\(path)" }

  deinit {
    server.stop(until: .after(seconds: 10))
    engine.stop(until: .after(seconds: 10))
  }
}

/// A client that says exactly the bytes it is told to.
final class RawClient {
  private let number: Int32

  init(_ path: String) throws {
    number = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
    let connected = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard connected == 0 else { throw Tool.Failure(description: "cannot connect to \(path)") }
    var time = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(number, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
  }

  func send(_ bytes: [UInt8]) { _ = Glibc.send(number, bytes, bytes.count, Int32(MSG_NOSIGNAL)) }

  /// Exactly so many bytes, or fewer when the server has hung up.
  func receive(_ count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var done = 0
    while done < count {
      let more = bytes.withUnsafeMutableBytes { buffer in
        buffer.baseAddress.map { recv(number, $0 + done, count - done, 0) } ?? 0
      }
      guard more > 0 else { break }
      done += more
    }
    return Array(bytes[..<done])
  }

  func halfClose() { shutdown(number, Int32(SHUT_WR)) }

  deinit { close(number) }
}

func big(_ value: some FixedWidthInteger) -> [UInt8] {
  stride(from: type(of: value).bitWidth - 8, through: 0, by: -8).map {
    UInt8(truncatingIfNeeded: value >> $0)
  }
}
