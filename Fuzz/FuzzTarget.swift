/// Something that reads what anybody may have written, handed to libFuzzer (docs/testing.md, "Fuzzing").
///
/// A target calls the product itself and holds what it promises of any bytes. Its folder has seeds (`seeds`),
/// what was found (`found`), and the names of the files that it has to reach (`module`).
package struct FuzzTarget: Sendable {
  /// That of its folder.
  package let name: String
  /// Makes what the target needs, which is gone with the closure that takes inputs.
  ///
  /// - Throws: what keeps the target from doing its work; the closure also ``BrokenPromise``.
  package let open: @Sendable () throws -> (_ input: [UInt8]) throws -> Void

  package init(
    _ name: String, open: @escaping @Sendable () throws -> (_ input: [UInt8]) throws -> Void
  ) {
    self.name = name
    self.open = open
  }

  package static let all = [
    FuzzTarget("Image") { ImageTarget.run },
    FuzzTarget("Descriptor") { DescriptorTarget.run },
    FuzzTarget("Extension") { ExtensionTarget.run },
    FuzzTarget("Checkpoints") { CheckpointsTarget.run },
    FuzzTarget("Manifest") { ManifestTarget.run },
    FuzzTarget("Journal") { JournalTarget.run },
    FuzzTarget("Intent") { IntentTarget.run },
    FuzzTarget("SavedIndex") { SavedIndexTarget.run },
    FuzzTarget("Hashes") { try HashesTarget().run },
    FuzzTarget("Notes") { NotesTarget.run },
    FuzzTarget("Audit") { AuditTarget.run },
    FuzzTarget("Tokens") { TokensTarget.run },
    FuzzTarget("Keys") { KeysTarget.run },
    FuzzTarget("Handshake") { try HandshakeTarget().run },
    FuzzTarget("Transmission") { try TransmissionTarget().run },
    FuzzTarget("HTTP") { try HTTPTarget().run },
  ]
}

/// What a reader promises of any bytes, and did not keep.
package struct BrokenPromise: Error, CustomStringConvertible {
  package let description: String

  package init(description: String) { self.description = description }
}

func promise(_ holds: Bool, _ words: @autoclosure () -> String) throws {
  if !holds { throw BrokenPromise(description: words()) }
}

/// The first bytes of an input say how the others are to be understood.
struct InputHead {
  private var rest: ArraySlice<UInt8>

  init(_ input: [UInt8]) { rest = input[...] }

  /// 0 behind the end.
  mutating func byte() -> UInt8 { rest.popFirst() ?? 0 }

  /// Little-endian; zeroes behind the end.
  mutating func number<Number: FixedWidthInteger>(_: Number.Type) -> Number {
    (0..<MemoryLayout<Number>.size).reduce(0) { $0 | Number(byte()) << Number(8 * $1) }
  }

  /// All that is left.
  var body: [UInt8] { Array(rest) }
}

func littleEndian(_ number: some FixedWidthInteger) -> [UInt8] {
  (0..<number.bitWidth / 8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
}
