internal import CAssets
internal import PloopIO

/// A file that was put into the program when it was built, or was made of such, as a browser is to have it.
///
/// It holds nothing of anybody's, so that whoever asks gets it.
struct WebFile: Sendable {
  /// Nothing comes from elsewhere or stands in the page itself, and no other page has this one in a frame.
  static let policy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    + "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"

  private static let types = [
    "css": "text/css; charset=utf-8", "html": "text/html; charset=utf-8",
    "json": "application/json", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml",
  ]

  let bytes: [UInt8]
  private let type: String
  private let tag: String

  init(name: String, _ asset: Asset) {
    self.init(name: name, asset.array)
  }

  /// - Parameter name: its ending says what it is.
  init(name: String, _ bytes: [UInt8]) {
    self.bytes = bytes
    let ending = name.lastIndex(of: ".").map { String(name[name.index(after: $0)...]) } ?? ""
    type = WebFile.types[ending] ?? "application/octet-stream"
    tag = "\"\(SHA256.hexDigest(bytes).prefix(32))\""
  }

  /// Kept by browsers, who ask each time whether it is still the same: another version may run by then.
  var reply: HTTPReply {
    var reply = HTTPReply(200)
    reply.bytes = bytes
    reply.bytesType = type
    return reply.with("ETag", tag).with("Cache-Control", "no-cache")
      .with("Content-Security-Policy", WebFile.policy)
      .with("Referrer-Policy", "no-referrer").with("Cross-Origin-Opener-Policy", "same-origin")
  }
}

extension Asset {
  /// A copy: C knows only where it begins (CAssets).
  var array: [UInt8] { Array(UnsafeBufferPointer(start: bytes, count: count)) }
}
