internal import FoundationEssentials

/// The command line of this process.
package enum CommandWords {
  /// Without the program's name.
  ///
  /// Swift finds them where they lie before the environment, and finds none once a library that was loaded ahead of it
  /// (`LD_PRELOAD`) has changed that; the kernel knows them still.
  package static var own: [String] {
    let known = CommandLine.arguments
    guard known.count < 2, let bytes = try? Data(contentsOf: URL(filePath: "/proc/self/cmdline"))
    else { return Array(known.dropFirst()) }
    return bytes.split(separator: 0, omittingEmptySubsequences: false).dropLast()
      .map { String(decoding: $0, as: UTF8.self) }.dropFirst().map { $0 }
  }
}
