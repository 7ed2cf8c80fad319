internal import Glibc
internal import PloopIO

/// What the kernel knows of this process.
package struct ProcessFacts: Sendable {
  /// Threads of one name.
  package struct Threads: Sendable {
    package var name: String
    package var count: Int
    package var processorSeconds: Double
  }

  package var process: Int32
  /// In user space and in the kernel.
  package var processorSeconds: Double
  /// Nil where the kernel does not tell.
  package var residentBytes: UInt64?
  package var mostResidentBytes: UInt64?
  package var virtualBytes: UInt64?
  package var threadCount: Int?
  package var openFiles: Int?
  package var mostFiles: UInt64?

  static func now() -> ProcessFacts {
    let status = lines(of: "/proc/self/status")
    func bytes(_ name: String) -> UInt64? {
      status[name].flatMap { UInt64(exactly: $0) }.map { $0 &* 1024 }
    }
    var limit = rlimit()
    let hasLimit = getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
    return ProcessFacts(
      process: getpid(), processorSeconds: usedSeconds(), residentBytes: bytes("VmRSS"),
      mostResidentBytes: bytes("VmHWM"), virtualBytes: bytes("VmSize"),
      threadCount: status["Threads"].flatMap { Int(exactly: $0) },
      openFiles: names(in: "/proc/self/fd")?.count,
      mostFiles: hasLimit ? UInt64(limit.rlim_cur) : nil)
  }

  /// Those that there are, by their names.
  static func threads() -> [Threads] {
    let ticks = Double(max(1, sysconf(Int32(_SC_CLK_TCK))))
    var found: [String: Threads] = [:]
    for number in names(in: "/proc/self/task") ?? [] {
      // The name is in brackets, and may hold any.
      guard let line = firstLine(of: "/proc/self/task/\(number)/stat"),
        let open = line.firstIndex(of: "("), let close = line.lastIndex(of: ")"), open < close
      else { continue }
      let name = String(line[line.index(after: open)..<close])
      // Behind the brackets the state is the first, and the two times are the 12th and the 13th.
      let words = line[line.index(after: close)...].split(separator: " ")
      let used = words.dropFirst(11).prefix(2).reduce(0.0) { $0 + (Double($1) ?? 0) }
      var threads = found[name] ?? Threads(name: name, count: 0, processorSeconds: 0)
      threads.count += 1
      threads.processorSeconds += used / ticks
      found[name] = threads
    }
    return found.values.sorted { $0.name < $1.name }
  }

  private static func usedSeconds() -> Double {
    var usage = rusage()
    guard getrusage(RUSAGE_SELF.rawValue, &usage) == 0 else { return 0 }
    return [usage.ru_utime, usage.ru_stime].reduce(0) {
      $0 + Double($1.tv_sec) + Double($1.tv_usec) / 1e6
    }
  }

  private static func names(in path: String) -> [String]? {
    try? ImageFolder(path: path).names()
  }

  private static func firstLine(of path: String) -> String? {
    var first: String?
    eachLine(of: path) { first = first ?? $0 }
    return first
  }

  /// The numbers of a file with a name and a number on each line.
  private static func lines(of path: String) -> [String: Double] {
    var found: [String: Double] = [:]
    eachLine(of: path) { line in
      let words = line.split { $0 == ":" || $0 == "\t" || $0 == " " || $0 == "\n" }
      if words.count >= 2, let number = Double(words[1]) { found[String(words[0])] = number }
    }
    return found
  }

  private static func eachLine(of path: String, _ body: (String) -> Void) {
    guard let file = fopen(path, "r") else { return }
    defer { fclose(file) }
    var buffer = [CChar](repeating: 0, count: 1024)
    while fgets(&buffer, Int32(buffer.count), file) != nil {
      body(
        String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self))
    }
  }
}
