package protocol ServiceAPI: Sendable {
  func info() async -> ServiceInfo
  func readiness() async -> Readiness
  func devices(after: String?, limit: Int, state: DeviceState?, labels: [String: String]) async
    -> Page<DeviceInfo>
  func device(_ id: String) async throws(ServiceError) -> DeviceInfo
  func attach(_ request: AttachRequest) async throws(ServiceError) -> DeviceInfo
  func change(_ id: String, _ change: DeviceChange, ifRevision: UInt64?) async throws(ServiceError)
    -> DeviceInfo
  func detach(_ id: String, mode: DetachMode, ifRevision: UInt64?) async throws(ServiceError)
  func snapshots(_ id: String) async throws(ServiceError) -> Page<SnapshotInfo>
  func map(_ id: String, offset: UInt64, length: UInt64?, limit: Int) async throws(ServiceError)
    -> DeviceMap
  func statistics(_ id: String) async throws(ServiceError) -> DeviceStatistics
  func exports(after: String?, limit: Int) async -> Page<ExportInfo>
  func export(_ name: String) async throws(ServiceError) -> ExportInfo
  func addExport(_ request: ExportRequest) async throws(ServiceError) -> ExportInfo
  func removeExport(_ name: String, mode: DetachMode, ifRevision: UInt64?)
    async throws(ServiceError)
}
