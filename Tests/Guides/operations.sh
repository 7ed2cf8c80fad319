# docs/operations.md. Its first commands are what makes this a host with ploopd on it.

no_systemd="no systemd here; scripts/test-systemd has one"
operations:as-a-debian-package() {
  untyped "make test-system builds it"
  untyped "scripts/test-package installs it in a Debian of its own"
  untyped "the package has the manual; scripts/test-package looks for its pages"
  untyped "scripts/test-package plays the role"
  cd "$repository"
  operations:by-hand
}
# The commands of "Settings", which come later on the page.
operations:by-hand() {
  local kept=("${pending[@]}")
  mapfile -t pending < <(awk -F '\t' '$1 == "settings" { print $2 }' "$scratch/operations.commands")
  mentioned
  typed
  typed
  typed
  typed
  [ "$(stat -c '%U %a' /srv/ploop)" = 'ploopd 750' ]
  sed -i 's/^http-listen: none/http-listen: 127.0.0.1:7447/' /etc/ploopd/ploopd.yaml
  start
  untyped "$no_systemd"
  untyped "$no_systemd"
  typed
  mentioned
  mentioned
  mentioned
  [ ${#pending[@]} -eq 0 ]
  pending=("${kept[@]}")
}
operations:settings() { pending=(); }
operations:back-up() {
  fresh
  write 7 0 4M
  typed
  typed
  backup=$(field id ploopctl backups list nas)
  typed
  says "$backup"
  typed
  typed
}
operations:restore() {
  write 8 0 4M
  typed
  typed
  quietly qemu-io -r -f raw -c 'read -P 7 0 4M' "${uri/vm1/vm1-restored}"
  says '4194304/4194304'
  typed
  typed
  typed
  reads 7 0 4M
}
operations:upgrade() {
  untyped "scripts/test-package installs a package over itself"
  typed
  typed
}
operations:move-to-another-host() {
  untyped "$no_systemd"
  stop
  mount --bind "$scratch" /root
  typed
  find /srv/ploop /etc/ploopd /var/lib/ploopd -mindepth 1 -delete
  untyped "$no_systemd"
  typed
  untyped "$no_systemd"
  start
  typed
  reads 7 0 4M
  umount /root
}
operations:large-disks() { mentioned; }
operations:who-may-use-the-api() {
  typed
  useradd alice
  typed
  runuser -u alice -- "$(command -v ploopctl)" devices list >"$scratch/said" 2>&1
}
operations:tokens() {
  typed
  cd /etc/ploopd
  typed
  says 'plp_'
  typed
  says nightly
  typed
  mentioned
  mentioned
  mkdir -p "$scratch/own/var/state"
  cd "$scratch/own"
  ploopd token add first-steps --scope admin >"$scratch/said"
  typed
}
certificates() {
  mkdir -p /etc/ploopd/tls /etc/pki/nbd
  cd /etc/ploopd/tls
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ploop.example.org \
    -addext subjectAltName=DNS:ploop.example.org -keyout server-key.pem -out server-cert.pem 2>"$scratch/said"
  cp server-cert.pem ca-cert.pem
  cp ca-cert.pem /etc/pki/nbd/
  chown ploopd server-key.pem
  chmod 644 server-key.pem
}
operations:tls() {
  certificates
  typed
  [ "$(stat -c %a server-key.pem)" = 640 ]
}
operations:nbd-over-tls() {
  stop
  cd "$scratch"
  echo '127.0.0.1 ploop.example.org' >>/etc/hosts
  local psk=/etc/ploopd/keys.psk
  cp /etc/ploopd/ploopd.yaml ploopd.yaml.before
  echo 'nbd-tls-certificates: /etc/ploopd/tls' >>/etc/ploopd/ploopd.yaml
  start
  typed
  [ "$(stat -c %s disk.raw)" = 16777216 ]
  typed
  stop
  install -o ploopd -m 600 /dev/null "$psk"
  typed
  cp "$psk" /etc/pki/vm1.psk
  echo "nbd-tls-psk: $psk" >>/etc/ploopd/ploopd.yaml
  start
  typed
  says 'export="vm1"'
  stop
  cp ploopd.yaml.before /etc/ploopd/ploopd.yaml
  start
}
operations:the-audit-log() {
  cd /var/log/ploopd
  mv audit.jsonl audit.jsonl.1
  quietly ploopctl devices set vm1 --label rotated=once
  until_ok '[ -s audit.jsonl ]'
  typed
  says head
  mv audit.jsonl.1 audit.jsonl.2
  gzip audit.jsonl.2
  mv audit.jsonl audit.jsonl.1
  quietly ploopctl devices set vm1 --label rotated=twice
  until_ok '[ -s audit.jsonl ]'
  typed
  says head
}
operations:sockets-from-systemd() {
  cd "$repository"
  typed
  untyped "$no_systemd"
  untyped "$no_systemd"
}
operations:virtual-machines-without-a-network() { untyped "$no_systemd"; }
operations:a-new-version-and-nobody-is-refused() { untyped "$no_systemd"; }
operations:what-to-watch() {
  cd "$scratch"
  typed
  grep -q '"version"' diagnostics.json
}
operations:moving-a-disk-to-another-host() {
  typed
  says plp_
}
operations:the-state-folder() {
  mentioned
  mentioned
}
