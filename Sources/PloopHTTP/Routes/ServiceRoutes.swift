internal import PloopControl

let serviceRoutes: [Route] = [
  Route("GET", "/healthz", "getHealth") { _ in HTTPReply(200, .members(["status": .string("ok")]))
  },
  Route("GET", "/readyz", "getReadiness") { call in
    let readiness = await call.service.readiness()
    return HTTPReply(readiness.isReady ? 200 : 503, readiness.json)
  },
  Route("GET", "/v1", "getService") { call in HTTPReply(200, await call.service.info().json) },
]
