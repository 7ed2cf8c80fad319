// swift-tools-version: 6.2
import PackageDescription

let settings: [SwiftSetting] = [
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

let argumentParser = Target.Dependency.product(
  name: "ArgumentParser", package: "swift-argument-parser")
let grdb = Target.Dependency.product(name: "GRDB", package: "GRDB.swift")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

/// What lies beside the targets of the fuzzer.
let fuzzData = [
  "Image", "Descriptor", "Extension", "Checkpoints", "Manifest", "Journal", "Intent",
  "SavedIndex", "Hashes", "Notes", "Audit", "Tokens", "Keys", "Handshake", "Transmission", "HTTP",
].flatMap { ["\($0)/seeds", "\($0)/found", "\($0)/module"] }

/// The targets in reading order: arrows point only upward in this list (docs/architecture.md).
let package = Package(
  name: "ploopd",
  products: [
    .executable(name: "ploopd", targets: ["ploopd"]),
    .executable(name: "ploopctl", targets: ["ploopctl"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
  ],
  targets: [
    // C: only what Swift cannot import (variadic functions, calls without a glibc wrapper).
    .target(name: "CLinux"),
    .target(name: "CMicrohttpd", linkerSettings: [.linkedLibrary("microhttpd")]),
    .target(name: "CGnuTLS", linkerSettings: [.linkedLibrary("gnutls")]),
    .target(name: "CCurl", linkerSettings: [.linkedLibrary("curl"), .linkedLibrary("gnutls")]),
    // Files that the service answers with; `#embed` is C's.
    .target(name: "CAssets", exclude: ["dashboard", "docs.css"]),
    .systemLibrary(name: "CNBD", pkgConfig: "libnbd", providers: [.apt(["libnbd-dev"])]),

    .target(name: "PloopIO", dependencies: ["CLinux"], swiftSettings: settings),
    .target(name: "PloopTLS", dependencies: ["CGnuTLS", "PloopIO"], swiftSettings: settings),
    .target(name: "PloopFormat", swiftSettings: settings),
    .target(name: "PloopJSON", swiftSettings: settings),
    .target(
      name: "PloopDevice", dependencies: ["PloopFormat", "PloopIO"], swiftSettings: settings),
    .target(name: "PloopNBD", dependencies: ["PloopIO", "PloopTLS"], swiftSettings: settings),
    .target(
      name: "PloopBackup", dependencies: ["CNBD", "PloopDevice", "PloopFormat", "PloopIO"],
      swiftSettings: settings),
    .target(name: "PloopPeer", dependencies: ["CCurl", "PloopIO"], swiftSettings: settings),
    .target(
      name: "PloopEtcd", dependencies: ["PloopIO", "PloopJSON", "PloopPeer"],
      swiftSettings: settings),
    .target(
      name: "PloopControl",
      dependencies: [
        "PloopBackup", "PloopDevice", "PloopEtcd", "PloopFormat", "PloopIO", "PloopJSON",
        "PloopNBD", "PloopPeer", grdb, logging,
      ],
      swiftSettings: settings),
    .target(
      name: "PloopHTTP",
      dependencies: [
        "CAssets", "CMicrohttpd", "PloopControl", "PloopFormat", "PloopIO", "PloopJSON",
        "PloopTLS", logging, yams,
      ],
      swiftSettings: settings),
    .target(
      name: "PloopTerminal", dependencies: [argumentParser], swiftSettings: settings),
    .target(
      name: "PloopClient",
      dependencies: [
        "CLinux", "PloopIO", "PloopJSON", "PloopPeer", "PloopTerminal", argumentParser,
      ],
      swiftSettings: settings),
    .executableTarget(
      name: "ploopctl", dependencies: ["PloopClient"], swiftSettings: settings),
    .executableTarget(
      name: "ploopd",
      dependencies: [
        "PloopControl", "PloopDevice", "PloopEtcd", "PloopFormat", "PloopHTTP", "PloopIO",
        "PloopJSON", "PloopNBD", "PloopPeer", "PloopTLS", "PloopTerminal", argumentParser, logging,
        yams,
      ],
      swiftSettings: settings),

    // What measures; it knows the service only as its users do.
    .target(
      name: "BenchKit", dependencies: ["PloopIO", "TestSupport"], path: "Benchmarks/BenchKit",
      swiftSettings: settings),
    .executableTarget(
      name: "bench", dependencies: ["BenchKit", "TestSupport", argumentParser],
      path: "Benchmarks/bench",
      swiftSettings: settings),

    .target(
      name: "TestSupport",
      dependencies: ["CNBD", "PloopBackup", "PloopDevice", "PloopFormat", "PloopIO"],
      path: "Tests/TestSupport", swiftSettings: settings),
    .target(
      name: "CrashKit",
      dependencies: ["PloopBackup", "PloopDevice", "PloopFormat", "PloopIO", "TestSupport"],
      path: "Tests/CrashKit", swiftSettings: settings),
    // What SQLite does to its files, for states of the database.
    .target(
      name: "CSQLiteTrace", path: "Tests/CSQLiteTrace", linkerSettings: [.linkedLibrary("sqlite3")]),
    .executableTarget(
      name: "crash-enumeration", dependencies: ["CrashKit", "PloopIO"], path: "Tests/CrashRunner",
      swiftSettings: settings),
    // What reads what anybody may have written; `make fuzz` adds the program.
    .target(
      name: "FuzzKit",
      dependencies: [
        "PloopBackup", "PloopControl", "PloopDevice", "PloopFormat", "PloopHTTP", "PloopIO",
        "PloopJSON", "PloopNBD", "PloopTLS", logging,
      ],
      path: "Fuzz", exclude: fuzzData + ["Driver"], swiftSettings: settings),
    .testTarget(
      name: "FuzzTests", dependencies: ["FuzzKit"], swiftSettings: settings),
    .testTarget(
      name: "CrashTests",
      dependencies: ["CrashKit", "PloopDevice", "PloopFormat", "PloopIO", "TestSupport"],
      exclude: ["failed-seeds"], swiftSettings: settings),
    .testTarget(
      name: "PloopIOTests", dependencies: ["PloopIO", "TestSupport"], swiftSettings: settings),
    .testTarget(
      name: "PloopFormatTests", dependencies: ["PloopFormat", "TestSupport"],
      swiftSettings: settings),
    .testTarget(
      name: "PloopDeviceTests",
      dependencies: ["PloopDevice", "PloopFormat", "PloopIO", "TestSupport"],
      swiftSettings: settings),
    .testTarget(
      name: "PloopBackupTests",
      dependencies: [
        "CrashKit", "PloopBackup", "PloopDevice", "PloopFormat", "PloopIO", "TestSupport",
      ],
      swiftSettings: settings),
    .testTarget(
      name: "PloopPeerTests", dependencies: ["PloopIO", "PloopPeer", "TestSupport"],
      swiftSettings: settings),
    .testTarget(
      name: "PloopClientTests",
      dependencies: ["PloopClient", "PloopJSON", "TestSupport", argumentParser, yams],
      swiftSettings: settings),
    .testTarget(
      name: "PloopNBDTests", dependencies: ["PloopIO", "PloopNBD", "PloopTLS", "TestSupport"],
      swiftSettings: settings),
    .testTarget(
      name: "PloopControlTests",
      dependencies: [
        "CSQLiteTrace", "CrashKit", "PloopBackup", "PloopControl", "PloopDevice", "PloopEtcd",
        "PloopFormat", "PloopIO", "PloopNBD", "PloopPeer",
        "TestSupport", grdb, logging,
      ],
      swiftSettings: settings),
    .testTarget(
      name: "PloopHTTPTests",
      dependencies: [
        "PloopControl", "PloopFormat", "PloopHTTP", "PloopIO", "PloopJSON", "TestSupport", logging,
        yams,
      ],
      swiftSettings: settings),
    .testTarget(
      name: "BenchTests", dependencies: ["BenchKit", "PloopIO", "TestSupport"],
      swiftSettings: settings),
    .testTarget(
      name: "InteropTests", dependencies: ["PloopDevice", "PloopFormat", "PloopIO", "TestSupport"],
      swiftSettings: settings),
    .testTarget(
      name: "EndToEndTests",
      dependencies: ["PloopBackup", "PloopFormat", "PloopIO", "TestSupport"],
      swiftSettings: settings),
  ],
  swiftLanguageModes: [.v6]
)

// It has no `main` but libFuzzer's, so only a build that has that can link it (scripts/fuzz).
if Context.environment["PLOOPD_FUZZ"] != nil {
  package.targets.append(
    .executableTarget(
      name: "fuzz", dependencies: ["FuzzKit"], path: "Fuzz/Driver", swiftSettings: settings))
}

// A build with a sanitizer takes its time: it has only what scripts/sanitize tests, and what that needs.
if Context.environment["PLOOPD_SANITIZE"] != nil {
  let sanitized: Set = [
    "CLinux", "CGnuTLS", "CNBD", "PloopIO", "PloopTLS", "PloopFormat", "PloopDevice", "PloopNBD",
    "PloopBackup", "TestSupport", "PloopIOTests", "PloopFormatTests", "PloopDeviceTests",
    "PloopNBDTests",
  ]
  package.targets.removeAll { !sanitized.contains($0.name) }
  package.products = []
}
