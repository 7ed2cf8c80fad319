// The pages of problems: `type` of a problem is the address of its own.

extension Contract {
  /// All of them.
  func problemList() -> WebFile {
    var page = WebPage(title: "Problems of ploopd")
    page.add(
      WebPage.prose(
        """
        An error is `application/problem+json` (RFC 9457). Its `code` is for programs and never changes its \
        meaning; `detail`, `cause` and `remedy` are for people. 5xx is for faults of the service or its host only.
        """))
    page.add(
      WebPage.table(
        ["code", "status", "when", "what to do"],
        ProblemCatalogue.all.map {
          [
            WebPage.problem($0.slug), String($0.status), WebPage.line($0.cause),
            WebPage.line($0.remedy),
          ]
        }))
    page.add("<p><a href=\"/docs\">The interface</a></p>")
    return page.file
  }

  func problemPage(_ entry: ProblemCatalogue.Entry) -> WebFile {
    var page = WebPage(title: entry.title)
    page.add("<p>\(WebPage.code(entry.slug)), status \(entry.status)</p>")
    page.add("<h2>When</h2>\n<p>\(WebPage.line(entry.cause))</p>")
    page.add("<h2>What to do</h2>\n<p>\(WebPage.line(entry.remedy))</p>")
    let having = operations.filter { $0.problems.contains(entry.slug) }
    page.add("<h2>Where</h2>")
    if having.isEmpty {
      page.add(
        "<p>It is not the answer to a request of the interface: it stands in the <code>error</code> of a job, or no operation was reached.</p>"
      )
    } else if having.count == operations.count {
      page.add("<p>Any operation.</p>")
    } else {
      page.add(
        "<ul>\n" + having.map { "<li>\(link(to: $0))</li>" }.joined(separator: "\n") + "</ul>")
    }
    page.add("<p><a href=\"/problems\">All problems</a>, <a href=\"/docs\">the interface</a></p>")
    return page.file
  }

  func link(to operation: Operation) -> String {
    "<a href=\"/docs#\(operation.id)\">\(WebPage.code("\(operation.method) \(WebPage.escaped(operation.path))"))</a>"
  }
}
