internal import Logging
internal import PloopControl
internal import PloopHTTP
internal import PloopNBD

extension Settings {
  /// All of them, by these names.
  var pairs: [(name: String, value: String)] {
    func place(_ address: HostPort?) -> String {
      address.map { "\($0.host):\($0.port)" } ?? Settings.none
    }
    return [
      ("state-dir", stateFolder),
      ("root", roots.map { "\($0.name)=\($0.path)" }.joined(separator: ",")),
      ("http-socket", httpSocket ?? Settings.none), ("http-listen", place(httpListen)),
      ("http-auth", httpAuth.rawValue), ("http-admin-group", httpAdminGroup),
      ("http-read-group", httpReadGroup),
      ("http-tls-certificates", httpCertificates ?? Settings.none),
      ("http-tls-client", httpClients.keys.sorted().joined(separator: ",")),
      ("http-host", httpHosts.joined(separator: ",")), ("audit-log", auditLog ?? "audit.jsonl"),
      ("nbd-socket", nbdSocket ?? Settings.none), ("nbd-listen", place(nbdListen)),
      ("nbd-tls", nbdSecurity.tcp.rawValue), ("nbd-socket-tls", nbdSecurity.socket.rawValue),
      ("nbd-tls-certificates", nbdCertificates ?? Settings.none),
      ("nbd-tls-psk", nbdKeys ?? Settings.none),
      ("nbd-tls-verify-peer", nbdVerifiesClients ? "true" : "false"),
      (
        "index-cache-size",
        indexCacheBytes.map { "\($0)" } ?? "\(Service.Configuration().indexCacheBytes)"
      ),
      ("etcd", fleetPart.etcd.isEmpty ? Settings.none : fleetPart.etcd.joined(separator: ",")),
      ("etcd-certificates", fleetPart.certificates ?? Settings.none),
      ("node", fleetPart.node ?? Settings.none),
      ("node-endpoint", fleetPart.endpoint ?? Settings.none),
      (
        "node-label",
        fleetPart.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
          .joined(separator: ",")
      ),
      ("node-capacity", "\(fleetPart.capacity ?? ServiceLimits().maxDevices)"),
      ("lease-seconds", "\(fleetPart.leaseSeconds)"),
      ("shared-locks", fleetPart.hasSharedLocks ? "true" : "false"),
      ("log-level", logLevel.rawValue), ("log-json", logJSON ? "true" : "false"),
      ("slow-operation-ms", "\(slowOperationMilliseconds)"),
    ]
  }
}
