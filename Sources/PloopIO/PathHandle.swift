/// A file that was found and not opened: a socket, for whoever connects to it by a path.
package final class PathHandle: Sendable {
  private let descriptor: OwnedDescriptor

  init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }

  /// Leads to the file, whatever its name is by now, as long as this object is there (man 5 proc_pid_fd).
  package var path: String { "/proc/self/fd/\(descriptor.number)" }
}
