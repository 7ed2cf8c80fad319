internal import Glibc

/// A file system of a test's own, by default ext4, on a loop device, which fills up and gets more room while it is
/// used. A host that does not let it be mounted fails the test.
///
/// The room that it gets is that of a file which it holds from the start: to enlarge the file system itself
/// takes a capability (CAP_SYS_RESOURCE) that containers do not have.
package final class SmallFilesystem {
  package enum Kind: String, CaseIterable, Sendable {
    case ext4
    /// Files can share blocks on these.
    case xfs, btrfs

    fileprivate var totalMebibytes: Int { self == .ext4 ? 160 : 512 }

    fileprivate var command: String {
      switch self {
      case .ext4: "mkfs.ext4 -q -m 0 -b 4096"
      case .xfs: "mkfs.xfs -q -m reflink=1"
      case .btrfs: "mkfs.btrfs -q"
      }
    }
  }

  package let path: String
  /// It goes only after what is mounted in it.
  private let folder: TemporaryFolder

  /// - Parameters:
  ///   - name: of a folder beneath `folder`, which is made; the image lies beside it.
  ///   - total: mebibytes that it is made with; nil for what tests need.
  ///   - mebibytes: that are free; nil for all that it has.
  package init(
    in folder: TemporaryFolder, _ name: String, _ kind: Kind = .ext4, total: Int? = nil,
    mebibytes: Int? = nil
  ) throws {
    self.folder = folder
    path = "\(folder.path)/\(name)"
    let image = "\(folder.path)/\(name.split(separator: "/").joined(separator: "-")).\(kind)"
    do {
      try Tool.shell(
        """
        mkdir -p '\(path)' && truncate -s \(total ?? kind.totalMebibytes)M '\(image)' &&
          \(kind.command) '\(image)' && mount -o loop '\(image)' '\(path)'
        """)
    } catch {
      throw Tool.Failure(
        description: "a file system of its own needs root, a loop device and mkfs.\(kind): \(error)"
      )
    }
    guard let mebibytes else { return }
    try Tool.shell("fallocate -l \(try freeBytes() - mebibytes << 20) '\(path)/ballast'")
  }

  /// How many extents of a file are another one's as well, or have another place in it.
  package func sharedExtents(of file: String) throws -> Int {
    let lines = try Tool.shell("sync -f '\(file)'; filefrag -v '\(file)'").output.split(
      separator: "\n")
    return lines.count { $0.contains("shared") }
  }

  deinit { _ = try? Tool.shell("umount -l '\(path)'", check: false) }

  /// The shell command that gives it more room.
  package func enlarging(byMebibytes mebibytes: Int) -> String {
    "truncate -s -\(mebibytes)M '\(path)/ballast' && sync -f '\(path)'"
  }

  /// Takes every byte that is left.
  package func fill() throws {
    let take = "dd if=/dev/zero of='\(path)/filler' bs=4k oflag=append conv=notrunc 2> /dev/null"
    // What was promised to files that are not on the disk yet is known once they are.
    try Tool.shell("sync -f '\(path)'; \(take); sync -f '\(path)'; \(take); true")
  }

  package func removeFiller() throws { try Tool.shell("rm '\(path)/filler' && sync -f '\(path)'") }

  /// Bytes that are free.
  package func freeBytes() throws -> Int {
    let words = try Tool.shell("stat -f -c '%a %S' '\(path)'").output.split { !$0.isNumber }
    guard words.count == 2, let blocks = Int(words[0]), let size = Int(words[1]) else {
      throw Tool.Failure(description: "stat says \(words)")
    }
    return blocks * size
  }
}
