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

  /// Makes `NAME.pem`, with three more authorities between the certificate and the one that is known, and `NAME-key.pem`.
  /// Each is signed by RSA of 4,096 bits and has a comment of 6 KiB, so that all of them are no single record.
  ///
  /// One key does for all of them, since it takes seconds to make one.
  package func chain(_ name: String, by authority: String, _ extensions: String) throws {
    try openssl(
      """
      openssl genrsa -out '\(name)-key.pem' 4096
      comment="nsComment=$(head -c 6000 /dev/zero | tr '\\0' x)"
      signer='\(authority)' key='\(authority)-key.pem'
      sign() {
        openssl req -new -key '\(name)-key.pem' -subj "/CN=$1" -out "$1.csr"
        printf '%s\\n' "$comment" "${@:2}" > "$1.ext"
        openssl x509 -req -in "$1.csr" -CA "$signer.pem" -CAkey "$key" -CAcreateserial -days 2 -extfile "$1.ext" -out "$1.pem"
        signer=$1 key='\(name)-key.pem'
      }
      for link in 1 2 3; do sign "\(name)-$link" 'basicConstraints=critical,CA:TRUE' 'keyUsage=critical,keyCertSign'; done
      sign '\(name)' '\(extensions)'
      cat '\(name)'-{3,2,1}.pem >> '\(name).pem'
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
