/// Who has asked for what is being done, as it is written down with it: `uid:0`, `token:nightly`.
///
/// It goes with the task that serves the request, through every actor that works for it. What goes on
/// behind a request, as jobs do, has it written down and takes it from there.
package enum Requester {
  /// Nil for what the service does by itself.
  @TaskLocal package static var name: String?
}
