internal import CAssets
internal import PloopJSON

/// The contract, for programs and for people; whoever reaches the service may read it.
let contractRoutes: [Route] = [
  Route("GET", "/openapi.json", "getContract", nil) { _ throws(Problem) in
    try documents.get().contract.reply
  },
  Route("GET", "/docs", "getReference", nil) { _ throws(Problem) in
    try documents.get().reference.reply
  },
  Route("GET", "/docs/style.css", "getReferenceStyle", nil) { _ throws(Problem) in
    style.reply
  },
  Route("GET", "/problems", "listProblems", nil) { _ throws(Problem) in
    try documents.get().problems.reply
  },
  Route("GET", "/problems/{slug}", "getProblem", nil) { call throws(Problem) in
    guard let page = try documents.get().problemPages[call.arguments[0]] else {
      throw Problem("not-found", "no problem is called \(call.arguments[0].prefix(80))")
    }
    return page.reply
  },
]

private let style = WebFile(name: "style.css", asset_docs_style().array)

/// Made of the contract when somebody asks for one of them first.
private let documents: Result<Documents, Problem> = Contract.own.map(Documents.init)

private struct Documents {
  let contract: WebFile
  let reference: WebFile
  let problems: WebFile
  let problemPages: [String: WebFile]

  init(_ contract: Contract) {
    self.contract = WebFile(name: "openapi.json", contract.document.encoded)
    reference = contract.referencePage()
    problems = contract.problemList()
    problemPages = ProblemCatalogue.entries.mapValues(contract.problemPage)
  }
}
