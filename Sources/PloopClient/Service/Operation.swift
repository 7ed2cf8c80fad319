/// The operations of the API but for its pages and pictures, by the names of openapi.yaml; a test holds the two against each other.
enum Operation: String, CaseIterable, Sendable {
  case getHealth, getReadiness, getMetrics, getService, getDiagnostics, listEvents
  case listDevices, attachDevice, getDevice, changeDevice, detachDevice, getMap, getStatistics
  case listDeltas, addDelta, getDelta, changeDelta, flipUpperDeltas, notifyMerged
  case listSnapshots, addSnapshot, getSnapshot, changeSnapshot, removeSnapshot, switchSnapshot
  case startTracking, getTracking, stopTracking, takeTracked, getTrackingBitmap
  case listCheckpoints, addCheckpoint, getCheckpoint, removeCheckpoint, getCheckpointBitmap
  case startPushBackup, getPushBackup, stopPushBackup, readPushBackup, confirmPushBackup
  case getPushBackupData
  case listJobs, addJob, getJob, changeJob, removeJob, cancelJob, retryJob, getJobLog
  case getQueue, changeQueue, listImages
  case listTargets, addTarget, getTarget, changeTarget, removeTarget
  case listBackups, getBackup, removeBackup
  case listNodes, moveDevice
  case listExports, addExport, getExport, removeExport, getExportData, listExtents

  /// Method and path; `{}` is where a name goes.
  var route: (method: String, path: String) {
    switch self {
    case .getHealth: ("GET", "/healthz")
    case .getReadiness: ("GET", "/readyz")
    case .getMetrics: ("GET", "/metrics")
    case .getService: ("GET", "/v1")
    case .getDiagnostics: ("GET", "/v1/diagnostics")
    case .listEvents: ("GET", "/v1/events")
    case .listDevices: ("GET", "/v1/devices")
    case .attachDevice: ("POST", "/v1/devices")
    case .getDevice: ("GET", "/v1/devices/{}")
    case .changeDevice: ("PATCH", "/v1/devices/{}")
    case .detachDevice: ("DELETE", "/v1/devices/{}")
    case .getMap: ("GET", "/v1/devices/{}/map")
    case .getStatistics: ("GET", "/v1/devices/{}/stats")
    case .listDeltas: ("GET", "/v1/devices/{}/deltas")
    case .addDelta: ("POST", "/v1/devices/{}/deltas")
    case .getDelta: ("GET", "/v1/devices/{}/deltas/{}")
    case .changeDelta: ("PATCH", "/v1/devices/{}/deltas/{}")
    case .flipUpperDeltas: ("POST", "/v1/devices/{}/flip-upper-deltas")
    case .notifyMerged: ("POST", "/v1/devices/{}/deltas/{}/notify-merged")
    case .listSnapshots: ("GET", "/v1/devices/{}/snapshots")
    case .addSnapshot: ("POST", "/v1/devices/{}/snapshots")
    case .getSnapshot: ("GET", "/v1/devices/{}/snapshots/{}")
    case .changeSnapshot: ("PATCH", "/v1/devices/{}/snapshots/{}")
    case .removeSnapshot: ("DELETE", "/v1/devices/{}/snapshots/{}")
    case .switchSnapshot: ("POST", "/v1/devices/{}/snapshots/{}/switch")
    case .startTracking: ("POST", "/v1/devices/{}/tracking")
    case .getTracking: ("GET", "/v1/devices/{}/tracking")
    case .stopTracking: ("DELETE", "/v1/devices/{}/tracking")
    case .takeTracked: ("POST", "/v1/devices/{}/tracking/next")
    case .getTrackingBitmap: ("GET", "/v1/devices/{}/tracking/bitmap")
    case .listCheckpoints: ("GET", "/v1/devices/{}/checkpoints")
    case .addCheckpoint: ("POST", "/v1/devices/{}/checkpoints")
    case .getCheckpoint: ("GET", "/v1/devices/{}/checkpoints/{}")
    case .removeCheckpoint: ("DELETE", "/v1/devices/{}/checkpoints/{}")
    case .getCheckpointBitmap: ("GET", "/v1/devices/{}/checkpoints/{}/bitmap")
    case .startPushBackup: ("POST", "/v1/devices/{}/push-backup")
    case .getPushBackup: ("GET", "/v1/devices/{}/push-backup")
    case .stopPushBackup: ("DELETE", "/v1/devices/{}/push-backup")
    case .readPushBackup: ("POST", "/v1/devices/{}/push-backup/read")
    case .confirmPushBackup: ("POST", "/v1/devices/{}/push-backup/confirm")
    case .getPushBackupData: ("GET", "/v1/devices/{}/push-backup/data")
    case .listJobs: ("GET", "/v1/jobs")
    case .addJob: ("POST", "/v1/jobs")
    case .getJob: ("GET", "/v1/jobs/{}")
    case .changeJob: ("PATCH", "/v1/jobs/{}")
    case .removeJob: ("DELETE", "/v1/jobs/{}")
    case .cancelJob: ("POST", "/v1/jobs/{}/cancel")
    case .retryJob: ("POST", "/v1/jobs/{}/retry")
    case .getJobLog: ("GET", "/v1/jobs/{}/log")
    case .getQueue: ("GET", "/v1/queue")
    case .changeQueue: ("PATCH", "/v1/queue")
    case .listImages: ("GET", "/v1/images")
    case .listNodes: ("GET", "/v1/nodes")
    case .moveDevice: ("POST", "/v1/devices/{}/move")
    case .listTargets: ("GET", "/v1/targets")
    case .addTarget: ("POST", "/v1/targets")
    case .getTarget: ("GET", "/v1/targets/{}")
    case .changeTarget: ("PATCH", "/v1/targets/{}")
    case .removeTarget: ("DELETE", "/v1/targets/{}")
    case .listBackups: ("GET", "/v1/targets/{}/backups")
    case .getBackup: ("GET", "/v1/targets/{}/backups/{}")
    case .removeBackup: ("DELETE", "/v1/targets/{}/backups/{}")
    case .listExports: ("GET", "/v1/exports")
    case .addExport: ("POST", "/v1/exports")
    case .getExport: ("GET", "/v1/exports/{}")
    case .removeExport: ("DELETE", "/v1/exports/{}")
    case .getExportData: ("GET", "/v1/exports/{}/data")
    case .listExtents: ("GET", "/v1/exports/{}/extents")
    }
  }
}
