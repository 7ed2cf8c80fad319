internal import ArgumentParser
internal import PloopTerminal

/// Something that a command cannot do, in words.
struct CommandFault: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// Says on standard error what goes wrong, and has the command end with status 1 then.
func reporting<Result>(_ body: () throws -> Result) throws(ExitCode) -> Result {
  do { return try body() } catch {
    writeToStandardError("ploopd: \(error)\n")
    throw ExitCode.failure
  }
}
