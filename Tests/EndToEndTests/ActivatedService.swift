import TestSupport
import Testing

/// The service as systemd has it: somebody else listens, hands the sockets over, and starts it again when it is told to.
final class ActivatedService {
  let folder: String
  private let supervisor: ChildProcess

  var nbdSocket: String { "\(folder)/nbd.sock" }
  private var logFile: String { "\(folder)/log" }

  /// - Parameters:
  ///   - names: of the two Unix sockets and the one of TCP.
  ///   - host: of the latter.
  ///   - options: of the service.
  init(
    in folder: String, names: String = "nbd:http:nbd", host: String = "127.0.0.1",
    options: [String] = []
  ) throws {
    self.folder = folder
    try Tool.shell(
      """
      mkdir -p '\(folder)/images' && cat > '\(folder)/supervisor.py' <<'END'
      import os, signal, socket, sys, time
      folder, names, host, program = sys.argv[1:5]
      def listening(family, address):
          s = socket.socket(family, socket.SOCK_STREAM); s.bind(address); s.listen(128)
          return s
      sockets = [listening(socket.AF_UNIX, f'{folder}/nbd.sock'),
                 listening(socket.AF_UNIX, f'{folder}/api.sock'),
                 listening(socket.AF_INET, (host, 0))]
      print(sockets[2].getsockname()[1], file=open(f'{folder}/port', 'w'))
      def start():
          child = os.fork()
          if child: return child
          for number, s in enumerate(sockets, 3): os.dup2(s.fileno(), number + 100)
          for number in range(3, 6): os.dup2(number + 100, number)
          signal.pthread_sigmask(signal.SIG_SETMASK, [])
          os.execve(program, sys.argv[4:], os.environ | {
              'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '3', 'LISTEN_FDNAMES': names})
      signals = [signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD]
      signal.pthread_sigmask(signal.SIG_BLOCK, signals)
      child = start()
      while True:
          what = signal.sigwait(signals)
          if what != signal.SIGCHLD: os.kill(child, signal.SIGTERM)
          status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
          if what != signal.SIGUSR1 or status != 0: sys.exit(status & 255)
          if signal.SIGCHLD in signal.sigpending(): signal.sigwait([signal.SIGCHLD])
          child = start()
          open(f'{folder}/restarted', 'w').close()
      END
      """)
    supervisor = try ChildProcess(
      [
        "/usr/bin/python3", "\(folder)/supervisor.py", folder, names, host,
        RunningService.program, "serve", "--state-dir", "\(folder)/state", "--root",
        "main=\(folder)/images",
      ] + options, output: "/dev/null", errors: "\(folder)/log")
    try Tool.shell("until test -s '\(folder)/port'; do sleep 0.02; done", seconds: 120)
  }

  var process: Int32 { supervisor.number }

  /// Asks the API, and waits while nobody is there.
  func call(_ words: String) throws -> String {
    try Tool.shell(
      "curl -sS --max-time 110 --unix-socket '\(folder)/api.sock' \(words)", seconds: 120
    )
    .output
  }

  /// Waits until the service is ready; what comes before that is answered too, by a refusal.
  func awaitReady() throws {
    try Tool.shell(
      "until curl -sf --unix-socket '\(folder)/api.sock' http://localhost/readyz; do sleep 0.05; done",
      seconds: 120)
  }

  func end() throws -> Int32 {
    supervisor.signal(15)
    return try supervisor.wait(seconds: 120)
  }

  /// What it says on its way out, when it cannot begin.
  func fault() throws -> String {
    #expect(try supervisor.wait(seconds: 120) == 1)
    return try Tool.shell("cat '\(logFile)'").output
  }
}
