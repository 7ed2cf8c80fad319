internal import PloopControl
internal import PloopFormat

/// The body of `POST /v1/devices`.
func attachRequest(_ body: Fields, from call: Call) throws(Problem) -> AttachRequest {
  var body = body
  let id = try body.requiredText("id")
  let deltas = try body.objects("deltas")
  let descriptor = try body.text("descriptor")
  let create = try body.object("create")
  let snapshot = try snapshot(&body, hasDescriptor: descriptor != nil)
  let source: AttachRequest.Source
  switch (deltas, descriptor, create) {
  case (let deltas?, nil, nil):
    guard !deltas.isEmpty else { throw body.wrongValue("deltas", "at least one is expected") }
    var references: [AttachRequest.DeltaReference] = []
    for delta in deltas { references.append(try reference(delta)) }
    source = .deltas(references)
  case (nil, let path?, nil):
    source = .descriptor(AttachRequest.DescriptorReference(path: path, snapshot: snapshot))
  case (nil, nil, let create?): source = .create(try creation(create))
  default:
    throw body.wrongValue("deltas", "exactly one of deltas, descriptor and create is expected")
  }
  var request = AttachRequest(id: id, source: source)
  let readonly = try body.flag("readonly")
  guard snapshot == nil || readonly != false else {
    throw Problem("snapshot-not-possible", "a snapshot can only be read", pointer: "/readonly")
  }
  request.readonly = readonly ?? (snapshot != nil)
  request.suspended = try body.flag("suspended") ?? false
  request.caller = try call.caller(named: body.text("holder"))
  request.autostart = try body.flag("autostart") ?? true
  request.labels = (try body.labels("labels", removable: false) ?? [:]).compactMapValues { $0 }
  request.repair = try body.choice("repair", of: AttachRequest.Repair.self) ?? .none
  request.bitmapsInImage = try body.flag("bitmaps_in_image") ?? false
  if var export = try body.object("export") {
    request.exportName = try export.requiredText("name")
    request.exportAccess = try export.access()
    try export.finish()
  }
  if let name = try body.text("incoming") {
    guard case .create = request.source else {
      throw body.wrongValue("incoming", "only a disk that is created can come from elsewhere")
    }
    guard (1...AttachRequest.incomingLengthLimit).contains(name.utf8.count) else {
      throw body.wrongValue(
        "incoming", "1 to \(AttachRequest.incomingLengthLimit) bytes are expected")
    }
    request.incoming = name
  }
  try body.finish()
  return request
}

private func snapshot(_ body: inout Fields, hasDescriptor: Bool) throws(Problem) -> GUID? {
  guard let guid = try body.guid("at") else { return nil }
  guard hasDescriptor else { throw body.wrongValue("at", "only a descriptor has snapshots") }
  return guid
}

/// A file and its format.
func reference(_ fields: Fields) throws(Problem) -> AttachRequest.DeltaReference {
  enum Format: String { case ploop1, raw }
  var fields = fields
  let path = try fields.requiredText("path")
  let format = try fields.choice("format", of: Format.self) ?? .ploop1
  try fields.finish()
  return AttachRequest.DeltaReference(path: path, isRaw: format == .raw)
}

private func creation(_ fields: Fields) throws(Problem) -> AttachRequest.CreateRequest {
  var fields = fields
  let directory = try fields.requiredText("directory")
  guard let size = try fields.number("size") else { throw fields.wrongValue("size", "is missing") }
  var request = AttachRequest.CreateRequest(directory: directory, sizeBytes: size)
  if let cluster = try fields.number("cluster_size") { request.clusterBytes = cluster }
  switch try fields.number("version") {
  case nil, 2: request.version = .v2
  case 1: request.version = .v1
  default: throw fields.wrongValue("version", "1 or 2 is expected")
  }
  try fields.finish()
  return request
}
