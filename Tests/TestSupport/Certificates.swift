/// Authorities, and certificates that they sign, made by openssl in a folder.
package struct Certificates {
  package let folder: String

  package init(in folder: String) throws {
    self.folder = folder
    try Tool.shell("mkdir -p '\(folder)'")
  }

  /// Makes `NAME.pem` and `NAME-key.pem`.
  package func authority(_ name: String) throws {
    try openssl("new '\(name)' -x509 -days 2 -keyout '\(name)-key.pem' -out '\(name).pem'")
  }

  /// Makes `NAME.pem` and `NAME-key.pem`.
  ///
  /// - Parameter extensions: as a file of openssl's has them, a line each.
  package func make(
    _ name: String, by authority: String, _ extensions: String, isExpired: Bool = false,
    usesRSA: Bool = false
  ) throws {
    try openssl(
      """
      \(usesRSA ? "kind=rsa:2048 " : "")new '\(name)' -keyout '\(name)-key.pem' -out '\(name).csr'
      printf '\(extensions)\\n' > '\(name).ext'
      openssl x509 -req -in '\(name).csr' -CA '\(authority).pem' -CAkey '\(authority)-key.pem' \\
        -CAcreateserial -days \(isExpired ? -1 : 2) -extfile '\(name).ext' -out '\(name).pem'
      """)
  }

  /// Makes a folder `NAME` as QEMU and libnbd want it of a server or of a client, and says where it is.
  ///
  /// - Parameters:
  ///   - own: whose certificate is shown as what; nil for nobody's.
  ///   - authority: who is trusted; nil for nobody.
  @discardableResult
  package func folder(
    _ name: String, _ own: (who: String, role: String)?, trusting authority: String?
  ) throws -> String {
    var commands = "mkdir -p '\(name)'"
    if let own {
      commands += """
        \n
        cp '\(own.who).pem' '\(name)/\(own.role)-cert.pem'
        install -m 600 '\(own.who)-key.pem' '\(name)/\(own.role)-key.pem'
        """
    }
    if let authority { commands += "\ncp '\(authority).pem' '\(name)/ca-cert.pem'" }
    try Tool.shell("cd '\(folder)' && set -e && \(commands)")
    return "\(folder)/\(name)"
  }

  /// Has an authority take a certificate back, and says so in a folder of a server's.
  package func revoke(_ name: String, of authority: String, for place: String) throws {
    try openssl(
      """
      : > '\(authority).index' && echo 01 > '\(authority).number'
      printf '[ca]\\ndefault_ca=own\\n[own]\\ndatabase=\(authority).index\\ncrlnumber=\(authority).number\\ndefault_md=sha256\\n' > '\(authority).cnf'
      ca() { openssl ca -config '\(authority).cnf' -cert '\(authority).pem' -keyfile '\(authority)-key.pem' "$@"; }
      ca -revoke '\(name).pem' && ca -gencrl -crldays 2 -out '\(place)/ca-crl.pem'
      """)
  }

  private func openssl(_ commands: String) throws {
    try Tool.shell(
      """
      cd '\(folder)' && exec 2>> make.log
      new() { openssl req -newkey ${kind:-ec -pkeyopt ec_paramgen_curve:prime256v1} -nodes -subj "/CN=$1" "${@:2}"; }
      \(commands)
      """)
  }
}
