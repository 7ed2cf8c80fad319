internal import Glibc
internal import Logging
internal import PloopControl
internal import PloopHTTP
internal import PloopIO

/// What somebody sees who has started the service without saying anything: calls to type, and a token
/// of this run's own.
enum FirstSteps {
  private static let tokenName = "first-steps"
  /// Beside the sockets; as a header, for `curl -H @var/token`.
  private static let tokenFile = "token"

  static func show(_ settings: Settings, _ log: Logger) {
    guard let socket = settings.httpSocket, let address = settings.httpListen else { return }
    let secret: TokenSecret
    do { secret = try makeToken(settings) } catch {
      log.error("no token could be made", metadata: ["reason": "\(error)"])
      return
    }
    print(text("curl --unix-socket \(socket)", "http://\(address.host):\(address.port)", secret))
    fflush(nil)
  }

  /// A new secret each time: nobody can say what the last one was.
  private static func makeToken(_ settings: Settings) throws -> TokenSecret {
    let secret = TokenSecret.make()
    try TokenFile(in: settings.stateFolder).change { tokens in
      tokens.removeAll { $0.name == tokenName }
      tokens.append(
        Token(
          name: tokenName, digest: secret.digest, grant: .all, createdAt: wallClockSeconds()))
    }
    try ImageFolder(path: Settings.ownFolder).replace(
      tokenFile, with: Array("Authorization: Bearer \(secret.text)\n".utf8), mode: 0o600)
    return secret
  }

  private static func text(_ curl: String, _ base: String, _ secret: TokenSecret) -> String {
    """
    ploopd is ready. Its dashboard, for a browser:

      \(base)/#token=\(secret.text)

    The same in another terminal:

      \(curl) http://localhost/v1
      \(curl) http://localhost/v1/devices -H 'Content-Type: application/json' \\
        -d '{"id":"vm1","create":{"directory":"vm1","size":1073741824},"export":{"name":"vm1"}}'
      nbdinfo nbd://127.0.0.1:10809/vm1
      \(curl) http://localhost/v1/devices/vm1
      \(curl) -X DELETE http://localhost/v1/devices/vm1
      curl -H @\(Settings.ownFolder)/\(tokenFile) \(base)/v1

    The last one shows a token, as TCP wants it.
    Images are under var/images. Ctrl-C ends it cleanly.
    """
  }
}
