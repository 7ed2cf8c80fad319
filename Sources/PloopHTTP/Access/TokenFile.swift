internal import Glibc
internal import PloopControl
internal import PloopIO
internal import PloopJSON

/// The file in the state folder that has the tokens' hashes. The service only reads it, and `ploopd
/// token` changes it while the service runs: it is replaced as a whole, by one such command at a time.
package struct TokenFile: Sendable {
  /// What the file says is not what such a file says.
  package struct Damage: Error, CustomStringConvertible {
    package let description: String
  }

  /// Tells whether the file has been replaced; nil where there is none.
  struct Stamp: Equatable {
    let device: UInt64
    let inode: UInt64
    let seconds: Int
    let nanoseconds: Int
    /// Of its owner and mode too, which may be what kept us from reading it.
    let changedSeconds: Int
    let changedNanoseconds: Int
  }

  package static let name = "tokens.json"
  private static let lockName = "tokens.lock"
  package static let mostTokens = 1000
  private static let mostBytes = 4 << 20

  private let folderPath: String

  /// - Parameter folder: the state folder, which need not be there yet.
  package init(in folder: String) { folderPath = folder }

  package var path: String { "\(folderPath)/\(TokenFile.name)" }

  var stamp: Stamp? {
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    return Stamp(
      device: UInt64(status.st_dev), inode: UInt64(status.st_ino),
      seconds: status.st_mtim.tv_sec, nanoseconds: status.st_mtim.tv_nsec,
      changedSeconds: status.st_ctim.tv_sec, changedNanoseconds: status.st_ctim.tv_nsec)
  }

  /// - Returns: none where there is no file.
  /// - Throws: a `Damage`, or the error of reading it.
  package func tokens() throws -> [Token] {
    let folder = try ImageFolder(path: folderPath)
    guard folder.contains(TokenFile.name) else { return [] }
    let bytes = try folder.bytes(of: TokenFile.name, limit: TokenFile.mostBytes)
    do throws(Problem) { return try TokenFile.parse(bytes) } catch {
      throw Damage(description: "\(path) is damaged: \(error.error.detail)")
    }
  }

  private static func parse(_ bytes: [UInt8]) throws(Problem) -> [Token] {
    var fields = try Fields(try JSON.read(bytes))
    guard try fields.number("version") == 1 else {
      throw Problem("invalid-value", "its version is not 1")
    }
    guard case .array(let items)? = fields.json("tokens"), items.count <= mostTokens else {
      throw Problem("invalid-value", "it has no list of at most \(mostTokens) tokens")
    }
    try fields.finish()
    var tokens: [Token] = []
    for item in items { tokens.append(try Token(item)) }
    guard Set(tokens.map(\.name)).count == tokens.count else {
      throw Problem("invalid-value", "two tokens have one name")
    }
    return tokens
  }

  /// Replaces the file, durably. Whoever looks meanwhile sees the one before or the one after.
  ///
  /// - Parameter body: changes the tokens; nothing is written where it throws.
  package func change<Result>(_ body: (inout [Token]) throws -> Result) throws -> Result {
    let folder = try ImageFolder(path: folderPath)
    let lock = try lock(in: folder)
    return try withExtendedLifetime(lock) {
      var tokens = try tokens()
      let result = try body(&tokens)
      let text = JSON.members([
        "version": .integer(1), "tokens": .array(tokens.map(\.json)),
      ]).encoded
      guard text.count < TokenFile.mostBytes else {
        throw Damage(
          description:
            "\(path) would be longer than \(TokenFile.mostBytes) bytes: nothing was changed")
      }
      try folder.prepare(TokenFile.name, with: text + [UInt8(ascii: "\n")], mode: 0o600)
      giveToOwner(of: folder, TokenFile.name + ".tmp")
      try folder.commit(TokenFile.name)
      return result
    }
  }

  private func lock(in folder: ImageFolder) throws -> ImageFile {
    let name = TokenFile.lockName
    if !folder.contains(name) {
      do throws(IOError) {
        _ = try folder.create(name, mode: 0o600)
        giveToOwner(of: folder, name)
      } catch {
        // Somebody else has made it meanwhile.
        guard error.code == EEXIST else { throw error }
      }
    }
    let file = try folder.open(name, writable: true)
    while file.withDescriptor({ flock($0, LOCK_EX) }) != 0 {
      guard errno == EINTR else { throw IOError.last("flock", "\(folderPath)/\(name)") }
    }
    return file
  }

  /// Root works for the service's user, who has the state folder and is to read the file.
  private func giveToOwner(of folder: ImageFolder, _ name: String) {
    folder.withDescriptor { descriptor in
      var status = stat()
      guard geteuid() == 0, fstat(descriptor, &status) == 0 else { return }
      _ = fchownat(descriptor, name, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW)
    }
  }
}

/// The tokens as the file has them now: it is looked at again when it has been replaced.
package final class TokenBook: Sendable {
  private struct State {
    var isRead = false
    var stamp: TokenFile.Stamp?
    var tokens: [Token] = []
    /// When a file that could not be read is looked at again, on the monotonic clock.
    var retryAt: UInt64?
    var complaint: String?
  }

  private static let retryNanoseconds: UInt64 = 1_000_000_000

  private let file: TokenFile
  private let complain: @Sendable (String) -> Void
  private let state = Locked(State())

  /// - Parameter complain: told once of each file that cannot be read; nobody is let in by such a one.
  package init(_ file: TokenFile, complain: @escaping @Sendable (String) -> Void) {
    self.file = file
    self.complain = complain
  }

  var tokens: [Token] {
    state.withLock { state in
      let stamp = file.stamp
      let isDue = state.retryAt.map { monotonicNanoseconds() >= $0 } ?? false
      guard !state.isRead || stamp != state.stamp || isDue else { return state.tokens }
      state.isRead = true
      state.stamp = stamp
      state.retryAt = nil
      do {
        state.tokens = try file.tokens()
        state.complaint = nil
      } catch {
        state.tokens = []
        // What it says stays wrong until it is replaced; what kept us from reading it may pass.
        if !(error is TokenFile.Damage) {
          state.retryAt = monotonicNanoseconds() + TokenBook.retryNanoseconds
        }
        let complaint = "\(error)"
        if complaint != state.complaint { complain(complaint) }
        state.complaint = complaint
      }
      return state.tokens
    }
  }

  /// The token whose secret this is. All are looked at, however early it is found.
  package func token(of secret: TokenSecret) -> Token? {
    let digest = Array(secret.digest.utf8)
    return tokens.filter { $0.hasDigest(digest) }.first
  }
}
