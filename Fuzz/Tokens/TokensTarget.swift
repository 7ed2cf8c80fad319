internal import PloopHTTP
internal import PloopIO

/// The file of tokens' hashes, and who gets in by it. Input: the file.
enum TokensTarget {
  /// Seeds have its hash.
  private static let secret = TokenSecret(text: TokenSecret.prefix + "fuzz")

  static func run(_ input: [UInt8]) throws {
    let place = try FuzzFolder()
    try place.put(TokenFile.name, input)
    let file = TokenFile(in: place.folder.path)
    let complaints = Locked(0)
    let book = TokenBook(file) { _ in complaints.withLock { $0 += 1 } }
    let found = book.token(of: secret)
    let tokens: [Token]
    do { tokens = try file.tokens() } catch is TokenFile.Damage {
      try promise(found == nil && complaints.withLock { $0 } == 1, "a damaged file lets one in")
      // It is not written over by somebody who adds one.
      do {
        try file.change { $0 = [] }
        throw BrokenPromise(description: "what is damaged was written over")
      } catch is TokenFile.Damage {}
      let after = try place.folder.bytes(of: TokenFile.name, limit: 1 << 20)
      return try promise(after == input, "what is damaged was changed")
    }
    let known = tokens.first { $0.digest == secret.digest }
    try promise(found == known && complaints.withLock { $0 } == 0, "somebody else gets in")
    try promise(tokens.count <= TokenFile.mostTokens, "\(tokens.count) tokens")
    try promise(Set(tokens.map(\.name)).count == tokens.count, "two tokens of one name")
    for token in tokens {
      try promise(Token.isName(token.name), "\(token.name) is no name")
      let isDigest = token.digest.utf8.allSatisfy { "0123456789abcdef".utf8.contains($0) }
      try promise(isDigest && token.digest.utf8.count == 64, "\(token.digest) is no hash")
    }
    try file.change { _ in }
    try promise(try file.tokens() == tokens, "tokens change when they are written")
    try file.change { $0.reverse() }
    try promise(try file.tokens() == tokens.reversed(), "tokens change when others do")
  }
}
