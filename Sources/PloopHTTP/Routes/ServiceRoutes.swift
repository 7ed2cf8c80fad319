internal import PloopControl
internal import PloopJSON

let serviceRoutes: [Route] = [
  Route("GET", "/healthz", "getHealth", nil) { call in
    let isFailing = call.audit?.isFailing ?? false
    return HTTPReply(
      200,
      .members([
        "status": .string(isFailing ? "degraded" : "ok"),
        "problems": isFailing ? .array([.string("the audit log cannot be written")]) : nil,
      ]))
  },
  Route("GET", "/readyz", "getReadiness", nil) { call in
    var readiness = await call.service.readiness()
    // Everybody may know whether, and who may see everything why.
    if !call.request.isOfSomebodyWhoSeesAll {
      for index in readiness.checks.indices { readiness.checks[index].detail = "" }
    }
    return HTTPReply(readiness.isReady ? 200 : 503, readiness.json)
  },
  Route("GET", "/metrics", "getMetrics", .read) { call in
    var reply = HTTPReply(200)
    reply.bytes = MetricsText.encode(
      await call.service.metrics() + call.traffic.metrics + [call.watchers.metric]
        + (call.audit?.metrics ?? []))
    reply.bytesType = MetricsText.contentType
    return reply
  },
  Route("GET", "/v1", "getService", .read, reach: .own, watching: { _ in .service }) { call in
    let info = await call.service.info()
    return HTTPReply(200, info.json).with(revision: info.revision)
  },
]
