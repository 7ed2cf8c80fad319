extension ProblemCatalogue {
  /// What is not there, or no more.
  static let missing: [Entry] = [
    Entry(
      "not-found", 404, "No such route",
      cause: "No route has this path; a slash at the end makes another path.",
      remedy: "see openapi.yaml"),
    Entry(
      "device-owned-elsewhere", 307, "Another node has the device",
      cause: "Another node of the fleet, the `holder`, has the device; `Location` is its address.",
      remedy: "follow `Location`"),
    Entry(
      "node-not-found", 404, "No such node",
      cause: "No node of the fleet has this name, or it has no lease.",
      remedy: "GET /v1/nodes lists them"),
    Entry(
      "device-not-found", 404, "No such device",
      cause: "No device has this id.",
      remedy: "GET /v1/devices lists them"),
    Entry(
      "snapshot-not-found", 404, "No such snapshot",
      cause: "The descriptor has no such snapshot.",
      remedy: "GET the device's snapshots"),
    Entry(
      "delta-not-found", 404, "No such delta",
      cause: "The device has no such level.",
      remedy: "GET the device's deltas"),
    Entry(
      "export-not-found", 404, "No such export",
      cause: "No export has this name.",
      remedy: "GET /v1/exports lists them"),
    Entry(
      "target-not-found", 404, "No such target",
      cause: "No target has this name.",
      remedy: "GET /v1/targets lists them"),
    Entry(
      "backup-not-found", 404, "No such backup",
      cause: "The target has no such backup.",
      remedy: "GET the target's backups"),
    Entry(
      "image-not-found", 404, "No such image",
      cause: "There is no file at the path.",
      remedy: "check root and path"),
    Entry(
      "tracking-not-active", 404, "The device is not tracked",
      cause: "The device is not tracked, or no more.",
      remedy: "POST its tracking"),
    Entry(
      "push-backup-not-active", 404, "The device has no push backup",
      cause: "The device has no push backup, or no more.",
      remedy: "POST one"),
    Entry(
      "push-backup-expired", 410, "The push backup is over",
      cause: "The push backup is over; `detail` says why.",
      remedy: "stop it, and begin another"),
    Entry(
      "checkpoint-not-found", 404, "No such checkpoint",
      cause: "The device has no such checkpoint.",
      remedy: "GET the device's checkpoints"),
    Entry(
      "job-not-found", 404, "No such job",
      cause: "No job has this id, or it was forgotten.",
      remedy: "GET /v1/jobs lists them"),
    Entry(
      "events-expired", 410, "The events are gone",
      cause: "What came behind `after` is not known any more; see `current_revision`.",
      remedy: "read everything anew, then go on from now"),
  ]
}
