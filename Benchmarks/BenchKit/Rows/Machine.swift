internal import TestSupport

/// Where something was measured, for people who compare it with their own.
enum Machine {
  static func description(program: String) throws -> [String] {
    try [
      "lscpu | sed -n 's/^Model name: *//p' | head -n 1 | tr -d '\\n'; echo \", $(nproc) cores, $(free -g | awk '/^Mem/ {print $2}') GiB, Linux $(uname -r)\"",
      "'\(program)' --version",
      "qemu-nbd --version | head -n 1",
      "nbdkit --version",
      "echo \"nbd-server $(PATH=$PATH:/usr/sbin nbd-server -V 2>&1 | grep -o '[0-9.]*' | head -n 1)\"",
      "fio --version",
    ].map { try Tool.shell($0, check: false).output.trimmingNewline }
  }
}
