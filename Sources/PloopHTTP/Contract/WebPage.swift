/// A page for people, in HTML without scripts.
struct WebPage {
  private static let style = "/docs/style.css"

  let title: String
  var body = ""

  var file: WebFile {
    let head = """
      <!doctype html>
      <html lang="en">
      <head>
      <meta charset="utf-8">
      <meta name="viewport" content="width=device-width">
      <title>\(WebPage.escaped(title))</title>
      <link rel="stylesheet" href="\(WebPage.style)">
      </head>
      <body>
      <h1>\(WebPage.escaped(title))</h1>

      """
    return WebFile(name: "page.html", Array("\(head)\(body)</body>\n</html>\n".utf8))
  }

  mutating func add(_ html: String) { body += html + "\n" }

  /// Text as it stands in an element or in an attribute.
  static func escaped(_ text: String) -> String {
    text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
      .replacing("\"", with: "&quot;")
  }

  /// A line of the contract's: what is between backticks is code.
  static func line(_ text: String) -> String {
    escaped(text).split(separator: "`", omittingEmptySubsequences: false).enumerated()
      .map { $0.offset.isMultiple(of: 2) ? String($0.element) : code($0.element) }.joined()
  }

  /// Paragraphs of the contract's, and lists whose items begin with a dash.
  static func prose(_ text: String) -> String {
    text.split(separator: "\n\n").map { block in
      guard block.hasPrefix("- ") else { return "<p>\(line(String(block)))</p>" }
      let items = String(block.dropFirst(2)).split(separator: "\n- ")
      return "<ul>" + items.map { "<li>\(line(String($0)))</li>" }.joined(separator: "\n") + "</ul>"
    }.joined(separator: "\n")
  }

  static func table(_ heads: [String], _ rows: [[String]]) -> String {
    guard !rows.isEmpty else { return "" }
    func row(_ cells: [String], _ tag: String) -> String {
      "<tr>" + cells.map { "<\(tag)>\($0)</\(tag)>" }.joined() + "</tr>"
    }
    return "<table>\n" + ([row(heads, "th")] + rows.map { row($0, "td") }).joined(separator: "\n")
      + "\n</table>"
  }

  /// - Parameter html: escaped already.
  static func code(_ html: some StringProtocol) -> String { "<code>\(html)</code>" }

  static func problem(_ slug: String) -> String {
    "<a href=\"/problems/\(slug)\">\(code(slug))</a>"
  }
}
