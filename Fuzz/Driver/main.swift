import FuzzKit
import Glibc

/// libFuzzer as a library (https://llvm.org/docs/LibFuzzer.html, "Using libFuzzer as a library").
@_silgen_name("LLVMFuzzerRunDriver")
func runDriver(
  _ count: UnsafeMutablePointer<CInt>,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
  _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// Which target; the arguments are libFuzzer's.
let wanted = getenv("FUZZ_TARGET").map { String(cString: $0) } ?? ""
guard let target = FuzzTarget.all.first(where: { $0.name == wanted }) else {
  let names = FuzzTarget.all.map(\.name).joined(separator: " ")
  print("FUZZ_TARGET is one of \(names)")
  exit(2)
}
/// The callback of C captures nothing.
nonisolated(unsafe) let run = try target.open()

var count = CommandLine.argc
var arguments = CommandLine.unsafeArgv
exit(
  runDriver(&count, &arguments) { bytes, count in
    do { try run(Array(UnsafeBufferPointer(start: bytes, count: count))) } catch {
      // libFuzzer takes it for what it is: a finding.
      let words = Array("\(wanted): \(error)\n".utf8)
      _ = write(2, words, words.count)
      abort()
    }
    return 0
  })
