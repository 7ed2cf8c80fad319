internal import Glibc

/// A file descriptor with one owner: closed when its owner goes, never twice.
package struct OwnedDescriptor: ~Copyable, Sendable {
  package let number: Int32

  /// Takes over `number`, which nobody else may close from now on.
  package init(_ number: Int32) { self.number = number }

  deinit { Glibc.close(number) }

  /// Gives the descriptor away; the caller closes it.
  package consuming func release() -> Int32 {
    let number = self.number
    discard self
    return number
  }
}
