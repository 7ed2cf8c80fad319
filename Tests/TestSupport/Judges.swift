/// QEMU's tools as judges of images: `parallels` is its name for the format.
package enum QEMU {
  /// Makes an image; `options` are those of `qemu-img create -o`.
  package static func create(_ path: String, _ options: String) throws {
    try Tool.shell("qemu-img create -q -f parallels -o \(options) '\(path)'")
  }

  /// - Throws: what `qemu-img check` says, when its status is another than expected.
  package static func expectSound(_ path: String, status: Int32 = 0) throws {
    let result = try Tool.shell("qemu-img check -f parallels '\(path)'", check: false)
    guard result.status != status else { return }
    throw Tool.Failure(description: "qemu-img check \(path): \(result.output)")
  }

  /// What QEMU reads in an image, as a raw file.
  package static func convertToRaw(_ path: String, _ raw: String) throws {
    try Tool.shell("qemu-img convert -f parallels -O raw '\(path)' '\(raw)'")
  }

  package static func convert(raw: String, _ path: String, _ options: String) throws {
    try Tool.shell("qemu-img convert -f raw -O parallels -o \(options) '\(raw)' '\(path)'")
  }

  /// A chain as QEMU's block layer takes it, oldest first: each image backed by the one below.
  package static func stack(_ paths: [String], rawBase: Bool) -> String {
    var node = ""
    for (level, path) in paths.enumerated() {
      let driver = rawBase && level == 0 ? "raw" : "parallels"
      let backing = node.isEmpty ? "" : ",\"backing\":\(node)"
      node =
        "{\"driver\":\"\(driver)\",\"file\":{\"driver\":\"file\",\"filename\":\"\(path)\"}\(backing)}"
    }
    return "json:\(node)"
  }
}

/// OpenVZ's `ploop` as a judge. It copies 4 KiB from behind its arguments and dies when its
/// environment is smaller than that, hence the padding.
package enum OpenVZ {
  /// What a shell command that calls `ploop` begins with.
  package static let padding = "PAD=$(head -c 16384 /dev/zero | tr '\\0' x)"

  /// `ploop init`: an empty image and its descriptor. Version 2 wants to see the kernel's module; a
  /// mount namespace of its own shows it one, and ends with the command.
  package static func initialise(
    _ path: String, version: Int, clusterSectors: Int, size: String, kind: String = "expanded"
  ) throws {
    let command =
      "ploop init -s \(size) -v \(version) -f \(kind) -b \(clusterSectors) -t none '\(path)'"
    guard version == 2 else {
      try Tool.shell("\(padding) \(command)")
      return
    }
    try run(command)
  }

  /// Runs shell commands with `ploop` among them, where it believes in the kernel's module and so
  /// in version 2.
  @discardableResult
  package static func run(_ commands: String) throws -> String {
    let parameters = "/sys/module/ploop/parameters"
    return try Tool.shell(
      """
      export \(padding)
      unshare -m bash -e <<'END-OF-COMMANDS'
      mount -t tmpfs none /sys/module
      mkdir -p \(parameters)
      touch \(parameters)/large_disk_support
      \(commands)
      END-OF-COMMANDS
      """
    ).output
  }

  /// Every check there is, holes filled, and not a byte of the file is other than before.
  package static func expectSound(_ path: String) throws {
    try Tool.shell(
      """
      before=$(sha256sum < '\(path)')
      \(padding) ploop check -f -S -c '\(path)' || exit
      [ "$before" = "$(sha256sum < '\(path)')" ] || { echo the content changed; exit 99; }
      """, seconds: 600)
  }

  /// `ploop merge`, newest first, into the last.
  package static func merge(_ paths: [String]) throws {
    let list = paths.map { "'\($0)'" }.joined(separator: " ")
    try Tool.shell("\(padding) ploop merge \(list)")
  }
}

/// - Throws: where two files differ.
package func expectSameBytes(_ one: String, _ other: String, _ note: String = "") throws {
  let result = try Tool.shell("cmp '\(one)' '\(other)'", check: false)
  guard result.status != 0 else { return }
  throw Tool.Failure(description: "\(note) \(result.output)")
}
