extension ProblemCatalogue {
  /// What cannot be done as things are.
  static let conflicts: [Entry] = [
    Entry(
      "device-exists", 409, "The device exists",
      cause: "The id is taken.",
      remedy: "choose another id, or detach it first"),
    Entry(
      "fleet-not-configured", 409, "No fleet",
      cause: "The service is a host of its own: it was begun without `etcd`.",
      remedy: "move the disk by a job of type migrate, or make the hosts a fleet"),
    Entry(
      "node-unsuitable", 409, "The node cannot take the device",
      cause: "The node has the device already, has no room, or other labels than the device wants.",
      remedy: "choose another node"),
    Entry(
      "takeover-undecided", 409, "Whether the owner before is gone is not known",
      cause: """
        The chain was being changed by an owner that may still write to lower deltas, and locks do not tell whether \
        it is gone (only as the reason of a device that failed).
        """,
      remedy: "see that the node before has ended, then detach the device and attach it again"),
    Entry(
      "tracking-active", 409, "The device is tracked already",
      cause: "The device is tracked already.",
      remedy: "DELETE its tracking first"),
    Entry(
      "push-backup-active", 409, "The device has a push backup",
      cause: "The device has a push backup, the `holder`.",
      remedy: "stop it first"),
    Entry(
      "push-backup-uuid-mismatch", 409, "Another push backup",
      cause: "The device's push backup is another one.",
      remedy: "GET the device's push-backup"),
    Entry(
      "push-backup-incomplete", 409, "Not everything is confirmed",
      cause: "Not everything is confirmed; `remaining` says how much.",
      remedy: "copy the rest, or abort"),
    Entry(
      "increment-not-possible", 409, "Nothing that an increment can build on",
      cause: """
        Nothing on the target can be built on by an increment of this disk; `detail` says why.
        """,
      remedy: "take mode auto or full"),
    Entry(
      "cluster-released", 409, "The cluster is not frozen any more",
      cause: "The cluster was confirmed, or was never wanted: it may have been overwritten.",
      remedy: "read before you confirm"),
    Entry(
      "export-exists", 409, "The export exists",
      cause: "The name is taken.",
      remedy: "choose another name"),
    Entry(
      "image-exists", 409, "The image exists",
      cause: "The file to be created exists, or its place belongs to a device.",
      remedy: "choose another directory or id"),
    Entry(
      "target-exists", 409, "The target exists",
      cause: """
        The name is taken, or the place, the folder around it or one within it is another \
        target's, the `holder`.
        """,
      remedy: "choose another name and place"),
    Entry(
      "target-in-use", 409, "A job works with the target",
      cause: "A job that is not over, the `holder`, works with the target.",
      remedy: "wait for it, or cancel it"),
    Entry(
      "target-not-empty", 409, "The target has backups",
      cause: "The target has `backups`.",
      remedy: "DELETE them, or use backups=keep"),
    Entry(
      "target-unreachable", 409, "The target cannot be used",
      cause: "What the target names cannot be used: missing, forbidden, not answering.",
      remedy: "look at where it lies"),
    Entry(
      "peer-refused", 409, "The other service refuses",
      cause: """
        The service to which a disk is moved refuses what is asked of it; `cause` is its own \
        code (only in a job's `error`).
        """,
      remedy: "`cause` is its own code, where it has given one"),
    Entry(
      "target-unsuitable", 409, "The target is of another type",
      cause: "The target is of another type than the job began with.",
      remedy: "begin another job"),
    Entry(
      "delta-damaged", 409, "A delta is not what it was when it was hashed",
      cause: """
        A cluster of a read-only delta is not what it was when the delta was hashed; `detail` \
        names cluster and file (only in a job's `error`).
        """,
      remedy: "restore it from a backup"),
    Entry(
      "image-not-orphaned", 409, "Somebody needs the file",
      cause: """
        Somebody needs the file, the `holder`, or it cannot be told, or another one has its name \
        by now; `detail` says which.
        """,
      remedy: "see `detail` and `holder`"),
    Entry(
      "repair-plan-outdated", 409, "The images are not those of the plan",
      cause: "The images are not those of the `plan` (only in a job's `error`).",
      remedy: "check them again, and read the new plan"),
    Entry(
      "backup-corrupt", 409, "The backup is not what was stored",
      cause: """
        Clusters of the backup are not what was stored; `detail` names the file and `clusters`.
        """,
      remedy: "restore another point"),
    Entry(
      "backup-incomplete", 409, "The backup is not whole",
      cause: "The point is not `complete`; `detail` says why.",
      remedy: "restore another point"),
    Entry(
      "backup-mismatch", 409, "The backup does not fit",
      cause: """
        What is asked for does not fit the backup: its size, its version, its place in the \
        chain.
        """,
      remedy: "see `detail`"),
    Entry(
      "backup-has-dependents", 409, "Other backups build on it",
      cause: "Other points, in `backups`, build on this one.",
      remedy: "DELETE them first, or use cascade=true"),
    Entry(
      "checkpoint-exists", 409, "The checkpoint exists",
      cause: "The device has a checkpoint of this name.",
      remedy: "choose another name, or DELETE it first"),
    Entry(
      "checkpoint-in-use", 409, "The checkpoint is needed",
      cause: "A push backup or a job, the `holder`, needs the checkpoint.",
      remedy: "end what needs it, the holder, first"),
    Entry(
      "snapshot-exists", 409, "The snapshot exists",
      cause: "There is a snapshot of this GUID.",
      remedy: "choose another GUID"),
    Entry(
      "snapshot-has-branches", 409, "Several states build on the snapshot",
      cause: "Several states build on the snapshot.",
      remedy: "delete them first"),
    Entry(
      "snapshot-not-possible", 409, "The snapshot does not allow it",
      cause: "The snapshot is marked as temporary, or its place in the tree does not allow it.",
      remedy: "look at its place in the tree"),
    Entry(
      "snapshot-protected", 409, "The snapshot is protected",
      cause: "The snapshot is protected.",
      remedy: "PATCH it: {\"protected\":false}"),
    Entry(
      "too-many-jobs", 409, "Too many jobs",
      cause: "10,000 jobs are not over.",
      remedy: "wait for some, or cancel them"),
    Entry(
      "job-active", 409, "The job is not over",
      cause: "The job is not over, or another one (`holder`) waits for its success.",
      remedy: "cancel it, or wait for it"),
    Entry(
      "job-finished", 409, "The job is over",
      cause: "The job is over.",
      remedy: "make a new one, or POST its retry"),
    Entry(
      "job-not-failed", 409, "The job has not failed",
      cause: "Only a failed or cancelled job is tried anew.",
      remedy: "only a failed or cancelled one is retried"),
    Entry(
      "job-uncancellable", 409, "The job cannot be cancelled any more",
      cause: "The job is behind the point where it can be stopped.",
      remedy: "wait for its end"),
    Entry(
      "dependency-failed", 409, "A job that had to succeed first did not",
      cause: "A job that had to succeed first did not (only in a job's `error`).",
      remedy: "retry both"),
    Entry(
      "nothing-below-top", 409, "Nothing below the top",
      cause: "The device has one delta.",
      remedy: "GET the device's snapshots"),
    Entry(
      "flip-overlap", 409, "The delta has other clusters",
      cause: """
        The older delta has clusters that the disk does not read from there; `detail` names one. \
        Nothing was changed.
        """,
      remedy: "see what another program did"),
    Entry(
      "not-suspended", 409, "The disk is not suspended",
      cause: "The device is not suspended.",
      remedy: "PATCH it: {\"suspended\":true}"),
    Entry(
      "resume-not-prohibited", 409, "The disk may be resumed by anybody",
      cause: "Anybody may resume the device.",
      remedy: "PATCH it: {\"noresume\":true}"),
    Entry(
      "nothing-to-merge", 409, "Nothing to merge",
      cause: "No delta lies below the one that was meant to receive another.",
      remedy: "GET the device's snapshots"),
    Entry(
      "descriptor-exists", 409, "Another descriptor is there",
      cause: """
        Beside the top of a disk that was attached by `deltas` lies a descriptor of another \
        chain; its chain cannot be changed. Or a delta was to be added to a disk whose chain its \
        descriptor says.
        """,
      remedy: "attach by it, or move it away"),
    Entry(
      "device-busy", 409, "The device is busy",
      cause: "Another operation has the device.",
      remedy: "try again when its operation has ended"),
    Entry(
      "device-running", 409, "The disk is in use",
      cause: "The disk has served requests since its attach, and is not suspended.",
      remedy: "PATCH it: {\"suspended\":true}"),
    Entry(
      "index-mismatch", 409, "The file's index says something else",
      cause: """
        The index in a delta's file is not what the request says of it, or does not have what it \
        should after a merge, or what it had before; `detail` names the cluster. Nothing was \
        changed.
        """,
      remedy: "make it durable in the file first"),
    Entry(
      "device-in-use", 409, "Clients are connected",
      cause: "NBD clients are connected; `clients` lists them.",
      remedy: "disconnect them, or use mode=hard"),
    Entry(
      "export-in-use", 409, "Clients are connected",
      cause: "NBD clients are connected to the export; `clients` lists them.",
      remedy: "disconnect them, or use mode=hard"),
    Entry(
      "writer-exists", 409, "The device has a writable export",
      cause: "The device has a writable export.",
      remedy: "ask for shared_writers"),
    Entry(
      "device-failed", 409, "The device has failed",
      cause: "The device could not be brought back, or has failed since.",
      remedy: "detach it, then attach it with repair"),
    Entry(
      "device-read-only", 409, "The device is read-only",
      cause: "The device was attached for reading.",
      remedy: "attach it for writing"),
    Entry(
      "resume-prohibited", 409, "Resuming is prohibited",
      cause: "`noresume` is set; `holder` says by whom.",
      remedy: "PATCH it: {\"noresume\":false}"),
    Entry(
      "image-unclean", 409, "The image was not closed",
      cause: "The image was not closed by whoever used it last.",
      remedy: "attach with \"repair\":\"safe\""),
    Entry(
      "image-index-tail-set", 409, "Slots behind the disk are set",
      cause: "Index slots behind the disk's end are set.",
      remedy: "attach with \"repair\":\"safe\""),
    Entry(
      "image-in-use", 409, "The image is in use",
      cause: "Another program, or another device, has the file.",
      remedy: "end what has it open"),
    Entry(
      "image-has-children", 409, "Other deltas build on the image",
      cause: "The file is a lower delta of a known device, or of the descriptor beside it.",
      remedy: "attach the chain's top"),
    Entry(
      "image-full", 409, "The image holds no more clusters",
      cause: "The file can hold no more clusters, however much room there is.",
      remedy: "take a snapshot, or discard some"),
    Entry(
      "insufficient-space", 409, "Not enough space",
      cause: """
        The file system that the file lies on is full, or has too little room for what was asked \
        for; then `required_bytes` and `free_bytes` say so.
        """,
      remedy: "free some, or use another root"),
    Entry(
      "idempotency-key-in-use", 409, "The request is being served",
      cause: "The request with this key is still being served.",
      remedy: "wait, then send it again"),
    Entry(
      "precondition-failed", 412, "The resource has changed",
      cause: "The revision in `If-Match` is not the current one; see `current_revision`.",
      remedy: "read it again"),
    Entry(
      "too-many-devices", 409, "Too many devices",
      cause: "The service hosts as many devices as it may.",
      remedy: "detach some"),
    Entry(
      "shrink-not-supported", 409, "A disk cannot become smaller",
      cause: "The size is less than the disk has.",
      remedy: "name at least its present size"),
  ]
}
