internal import ArgumentParser
internal import Glibc
internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import PloopTerminal

/// Does a command's work; what goes wrong is said on stderr in one line, and the status is 1.
///
/// - Parameter files: as named on the command line, oldest first.
func reporting<Result>(
  on files: [String], _ work: () throws(DeviceError) -> Result
) throws(ExitCode) -> Result {
  do {
    return try work()
  } catch {
    writeToStandardError("ploopd: \(explanation(of: error, on: files))\n")
    throw ExitCode.failure
  }
}

/// `FILE: what happened; what to do`
private func explanation(of error: DeviceError, on files: [String]) -> String {
  switch error.kind {
  case .format(let format, let level):
    return "\(files[min(level, files.count - 1)]): \(format.detail)\(advice(on: format.code))"
  case .locked:
    return "\(asNamed(error.detail)); stop it, or ask the service that has it attached"
  case .io(let io) where io.code == EEXIST:
    return "\(asNamed(io.path)): exists already; choose another name"
  case .io(let io):
    let place = io.offset.map { " at byte \($0)" } ?? ""
    return "\(asNamed(io.path)): cannot \(io.call)\(place): \(IOError.text(of: io.code))"
  case .outOfSpace:
    return "\(asNamed(error.detail)); free some space and try again"
  case .imageFull:
    return "\(asNamed(error.detail)); no file may be so long here: see 'ulimit -f'"
  default:
    return asNamed(error.detail)
  }
}

/// A text that begins with a path, without the folder that nobody has typed.
private func asNamed(_ text: String) -> String {
  text.hasPrefix("./") ? String(text.dropFirst(2)) : text
}

private func advice(on code: FormatError.Code) -> String {
  switch code {
  case .signatureUnknown: "; it is no ploop image (a raw one is named with --raw-base)"
  case .unclean: "; run 'ploopd image check --repair'"
  case .corrupt: "; 'ploopd image check' lists all that is wrong"
  case .geometryMismatch, .rawSizeMisaligned: "; name the images of one disk, oldest first"
  default: "; restore the header from a backup"
  }
}
