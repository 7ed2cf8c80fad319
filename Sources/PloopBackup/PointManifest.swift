internal import FoundationEssentials
package import PloopFormat
package import PloopIO

/// What a point of a backup is, in a file of its own beside its image.
///
/// It is durable before the first byte of the image, without a result; whoever goes on with the point after
/// a crash finds here what it is to be. With a result the point is whole. The file carries a checksum of
/// itself, and that of the journal, which has those of all clusters.
package struct PointManifest: Codable, Sendable, Equatable {
  package enum Mode: String, Codable, Sendable {
    case full, incremental
  }

  /// What is known once all is stored.
  package struct Result: Codable, Sendable, Equatable {
    package var storedClusters: UInt64
    package var bytesRead: UInt64
    package var bytesWritten: UInt64
    package var zeroBytes: UInt64
    /// The SHA-256 of the journal.
    package var journalDigest: String
    /// Seconds since 1970.
    package var completedAt: Double
    /// Of a file by itself: when it was written last, as its file system says. Whoever has written it since
    /// has made it another one.
    package var modifiedAt: Double?

    /// Whether a point of such a disk can have come to this.
    fileprivate func isPossible(of geometry: Geometry) -> Bool {
      storedClusters <= geometry.clusterCount
        && bytesWritten == storedClusters * geometry.clusterBytes
    }
  }

  package private(set) var version = 1
  package let id: String
  package var device: String
  package var mode: Mode
  /// The point that it builds on; nil for a full one.
  package var parent: String?
  /// What the descriptor calls it once another point builds on it.
  package var guid: String
  /// The instant whose state it holds, in seconds since 1970.
  package var pointInTime: Double
  /// The snapshot that was copied, and the checkpoint from which the clusters were taken, by their names.
  package var snapshot: String?
  package var checkpoint: String?
  /// The checkpoint that begins at the instant, with what is written from then on. It was made at the same
  /// time as this says (``pointInTime``): one of the same name and another time is another one.
  package var nextCheckpoint: String?
  /// Of a snapshot: a digest of which files it is made of, and of what each of them is called in its chain.
  package var layers: String?
  /// Of a disk that was written meanwhile: the newest snapshot that lay beneath it at the instant; a GUID of
  /// zeroes where there was none.
  package var below: String?
  package var sizeBytes: UInt64
  package var clusterBytes: UInt64
  /// The SHA-256 of the bits of the clusters that were wanted; nil for all of them.
  package var wantedDigest: String?
  package var result: Result?

  /// - Parameters:
  ///   - id: see ``BackupNames``.
  ///   - geometry: of the disk.
  ///   - wanted: see ``BackupSource/wanted``.
  package init(
    _ id: String, device: String, mode: Mode, parent: String? = nil, geometry: Geometry,
    wanted: Bitmap? = nil, pointInTime: Double, guid: GUID = .random()
  ) {
    self.id = id
    self.device = device
    self.mode = mode
    self.parent = parent
    self.guid = guid.description
    self.pointInTime = pointInTime
    sizeBytes = geometry.sizeBytes
    clusterBytes = geometry.clusterBytes
    wantedDigest = PointManifest.digest(of: wanted)
  }

  static func digest(of wanted: Bitmap?) -> String? {
    wanted.map { SHA256.hexDigest($0.bytes) }
  }

  /// Whether more may be wanted by who goes on with it than when it was begun: a checkpoint goes on recording
  /// while a snapshot is copied, and none of what it records then is other in the snapshot. There is no digest then.
  package var wantsEverMore: Bool { snapshot != nil && checkpoint != nil }

  /// The sizes of the point's image, which is always of version 2.
  ///
  /// - Returns: nil when there is no such image.
  package var geometry: Geometry? {
    let shift = clusterBytes.trailingZeroBitCount
    guard clusterBytes.nonzeroBitCount == 1, Geometry.clusterShifts.contains(shift), sizeBytes > 0,
      sizeBytes % Geometry.sectorBytes == 0,
      sizeBytes <= Geometry.sizeLimit(version: .v2, clusterShift: shift)
    else { return nil }
    return Geometry(version: .v2, clusterShift: shift, sizeBytes: sizeBytes)
  }

  // MARK: The file

  static let limitBytes = 64 << 10
  private static let head = Array(#"{"manifest":"#.utf8)
  private static let middle = Array(#","sha256":""#.utf8)
  private static let tail = Array("\"}\n".utf8)
  private static let digestBytes = 64

  /// The bytes of the file: JSON, in which the manifest is followed by the SHA-256 of its own bytes.
  package var file: [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    encoder.keyEncodingStrategy = .convertToSnakeCase
    // Strings and finite numbers always have a text.
    let body = (try? encoder.encode(self)).map(Array.init) ?? []
    return Self.head + body + Self.middle + Array(SHA256.hexDigest(body).utf8) + Self.tail
  }

  /// - Throws: `.corrupt` when it is not what somebody wrote as a whole.
  package init(parsing file: [UInt8], path: String) throws(BackupError) {
    let corrupt = BackupError(.corrupt(clusters: []), "\(path): this is no whole manifest")
    let end = file.count - Self.tail.count - Self.digestBytes - Self.middle.count
    guard end > Self.head.count, file.starts(with: Self.head),
      file[end...].starts(with: Self.middle)
    else { throw corrupt }
    let body = Array(file[Self.head.count..<end])
    let digest = file[(end + Self.middle.count)...].prefix(Self.digestBytes)
    guard digest.elementsEqual(SHA256.hexDigest(body).utf8) else { throw corrupt }
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    guard let manifest = try? decoder.decode(Self.self, from: Data(body)) else { throw corrupt }
    guard manifest.version == 1, let geometry = manifest.geometry, GUID(manifest.guid) != nil,
      manifest.result.map({ $0.isPossible(of: geometry) }) ?? true
    else {
      throw BackupError(
        .mismatch, "\(path): manifest of version \(manifest.version), or of an impossible disk")
    }
    self = manifest
  }
}

/// How the files of a point are called.
package enum BackupNames {
  package static let image = ".hds"
  package static let journal = ".sums"
  package static let manifest = ".json"

  /// Whether it can be the name of a point, a chain or a device: 1 to 64 letters, digits, `-`, `_` and
  /// dots, the first no dot, so that it is a file's name and nothing else.
  package static func isValid(_ name: String) -> Bool {
    let bytes = name.utf8
    return (1...64).contains(bytes.count) && bytes.first != UInt8(ascii: ".")
      && bytes.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"),
          UInt8(ascii: "."):
          true
        default: false
        }
      }
  }

  /// The point that a file belongs to, half-written ones included.
  static func point(ofFile name: String) -> String? {
    let name = name.hasSuffix(".tmp") ? String(name.dropLast(4)) : name
    for suffix in [image, journal, manifest] where name.hasSuffix(suffix) {
      let id = String(name.dropLast(suffix.count))
      return isValid(id) ? id : nil
    }
    return nil
  }
}
