internal import CAssets

/// The page for people, and what it is made of.
let dashboardRoutes: [Route] = [
  Route("GET", "/", "getDashboard", nil) { _ throws(Problem) in
    try dashboardFile("index.html")
  },
  Route("GET", "/dashboard/{folder}/{file}", "getDashboardFile", nil) { call throws(Problem) in
    try dashboardFile(call.arguments.joined(separator: "/"))
  },
]

/// By their paths in Sources/CAssets/dashboard.
private let dashboardFiles: [String: WebFile] = {
  var files: [String: WebFile] = [:]
  for index in 0..<dashboard_count() {
    let file = dashboard_file(index)
    let path = String(cString: file.path)
    files[path] = WebFile(name: path, file.asset)
  }
  return files
}()

private func dashboardFile(_ path: String) throws(Problem) -> HTTPReply {
  guard let file = dashboardFiles[path] else {
    throw Problem("not-found", "the dashboard has no file \(path)")
  }
  return file.reply
}
