internal import Glibc
internal import Logging
internal import PloopBackup
internal import PloopIO

/// What the state folder knows of backups and copies in single files and exports (``Service/records(_:of:)``), and who
/// still needs it. Looked at once, before any job begins and anybody can make a target: nobody else opens them then.
struct RecordPruning {
  /// The file that says of which place a folder's records are; folders of earlier versions have none, and stay.
  static let placeFile = "place"
  private static let placeBytesLimit = 8_192
  private static let kinds = ["files", "exports", "copies"]
  /// As long as jobs that are over are kept: until then whoever looks for the job may make a target of the place.
  private static let exportKeptSeconds: Double = 30 * 86_400
  /// What lies beneath a root may be on a server that does not answer, which keeps no service from beginning.
  private static let lookSeconds = 5

  private struct Candidate: Sendable {
    let kind: String
    /// Of its folder, in that of its kind.
    let name: String
    let place: String
  }

  private let state: ImageFolder
  private let roots: Roots
  private let log: Logger
  private let now: Double

  init(in state: ImageFolder, _ roots: Roots, _ log: Logger, now: Double = wallClockSeconds()) {
    self.state = state
    self.roots = roots
    self.log = log
    self.now = now
  }

  static func folderName(of place: String) -> String { SHA256.hexDigest(Array(place.utf8)) }

  /// Removes the records of places that nobody names any more: of a copy, of a backup in a file that is gone, and of
  /// one in an export that is old.
  ///
  /// - Parameters:
  ///   - targets: all that there are.
  ///   - jobs: that are not over.
  func prune(_ targets: [Target], _ jobs: [JobRecord]) {
    let used = RecordPruning.used(by: targets, jobs)
    let candidates = RecordPruning.kinds.flatMap(candidates).filter { candidate in
      !used.contains("\(candidate.kind)/\(candidate.name)")
    }
    guard !candidates.isEmpty else { return }
    for lost in lost(of: candidates) {
      do throws(IOError) { try remove(lost) } catch {
        log.warning(
          "what is known of a backup that is gone is left", metadata: ["reason": "\(error)"])
      }
    }
  }

  private static func used(by targets: [Target], _ jobs: [JobRecord]) -> Set<String> {
    let places = targets.map(\.place) + jobs.compactMap { BackupDestination($0)?.place?.place }
    let kept = places.compactMap { place -> String? in
      switch place {
      case .directory: nil
      case .file(let path, let format): "files/\(folderName(of: "\(format.rawValue) \(path)"))"
      case .nbd(let uri): "exports/\(folderName(of: uri))"
      }
    }
    let copies = jobs.compactMap { job -> String? in
      switch ExportDestination(job) {
      case .image(let place, _)?, .raw(let place)?, .nbd(let place)?:
        "copies/\(folderName(of: place))"
      case nil: nil
      }
    }
    return Set(kept + copies)
  }

  private func candidates(_ kind: String) -> [Candidate] {
    guard let folder = try? state.folder(beneath: kind), let names = try? folder.names() else {
      return []
    }
    return names.compactMap { name in
      guard let records = try? folder.folder(beneath: name),
        let bytes = try? records.bytes(
          of: RecordPruning.placeFile, limit: RecordPruning.placeBytesLimit)
      else { return nil }
      let place = String(decoding: bytes, as: UTF8.self)
      // Of no other place than its name is made of.
      guard RecordPruning.folderName(of: place) == name else { return nil }
      return Candidate(kind: kind, name: name, place: place)
    }
  }

  // MARK: What is gone

  private func lost(of candidates: [Candidate]) -> [Candidate] {
    let found = Monitor<[Candidate]?>(nil)
    let looked = try? Thread(name: "ploopd-records") { [self] in
      let lost = candidates.filter(isLost)
      found.update { $0 = lost }
    }
    guard let looked else { return [] }
    looked.detach()
    return found.wait(until: .after(seconds: RecordPruning.lookSeconds)) { $0 } ?? []
  }

  private func isLost(_ candidate: Candidate) -> Bool {
    switch candidate.kind {
    case "copies": true
    case "exports": isOld(candidate)
    default: isGone(candidate.place)
    }
  }

  private func isOld(_ candidate: Candidate) -> Bool {
    guard let folder = try? state.folder(beneath: "\(candidate.kind)/\(candidate.name)"),
      let stamp = try? folder.open(RecordPruning.placeFile, writable: false).stamp(),
      Double(stamp.seconds) + RecordPruning.exportKeptSeconds < now
    else { return false }
    let names = (try? folder.names()) ?? []
    return names.allSatisfy { name in
      guard let stamp = try? folder.open(name, writable: false).stamp() else { return false }
      return Double(stamp.seconds) + RecordPruning.exportKeptSeconds < now
    }
  }

  /// Whether neither a file nor what was begun of it is where it was. What cannot be looked at is not gone.
  private func isGone(_ place: String) -> Bool {
    let parts = place.split(separator: " ", maxSplits: 1)
    guard parts.count == 2, let location = try? roots.locate(String(parts[1]), pointer: ""),
      let folder = try? roots.folder(of: location, pointer: ""), let names = try? folder.names()
    else { return false }
    // An empty folder may be one beneath which something is not mounted yet.
    return !names.isEmpty
      && !names.contains { name in
        name == location.name || FilePointTarget.isPart(name, of: location.name)
      }
  }

  private func remove(_ candidate: Candidate) throws(IOError) {
    let kind = try state.folder(beneath: candidate.kind)
    let folder = try kind.folder(beneath: candidate.name)
    // What says whose they are goes last.
    let names = try folder.names().filter { $0 != RecordPruning.placeFile }
    for name in names + [RecordPruning.placeFile] { try folder.unlink(name) }
    try folder.sync()
    guard kind.withDescriptor({ unlinkat($0, candidate.name, AT_REMOVEDIR) }) == 0 else {
      throw .last("rmdir", folder.path)
    }
    try kind.sync()
    log.info(
      "what was known of a backup that is gone was forgotten",
      metadata: ["place": "\(candidate.place)"])
  }
}
