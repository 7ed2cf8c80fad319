# docs/recovery.md, from "Who may do what" to its end.

recovery:unauthorized() {
  local tcp='--address http://127.0.0.1:7447'
  refused unauthorized ploopctl devices list $tcp
  typed
  typed
  PLOOPD_TOKEN=$(grep -o 'plp_[^ ]*' "$scratch/said") quietly ploopctl devices list $tcp
}
recovery:peer-not-allowed() {
  id alice >/dev/null 2>&1 || useradd alice
  gpasswd -d alice ploopd >/dev/null 2>&1 || true
  refused peer-not-allowed runuser -u alice -- "$(command -v ploopctl)" devices list
  typed
  quietly runuser -u alice -- "$(command -v ploopctl)" devices list
  untyped "$no_systemd"
}
recovery:image-unreadable() {
  fresh
  write 7
  quietly ploopctl devices detach vm1
  chown root "$top"
  chmod 600 "$top"
  refused image-unreadable $attach
  typed 1
  says 'Permission denied'
  typed
  quietly $attach --export vm1
  reads 7
}
recovery:not-ready() { typed; }
recovery:internal() { typed; }
recovery:device-not-found() {
  fresh
  refused device-not-found ploopctl devices show vm2
  typed
}
recovery:snapshot-not-found() {
  fresh
  refused snapshot-not-found ploopctl snapshots show vm1 5fbaabe3-6958-40ff-92a7-860e329aab42
  typed
}
recovery:delta-not-found() {
  fresh
  refused delta-not-found ploopctl deltas show vm1 7
  typed
}
recovery:export-not-found() {
  refused export-not-found ploopctl exports show vm2
  typed
}
recovery:target-not-found() {
  refused target-not-found ploopctl targets show another
  typed
}
recovery:image-not-found() {
  fresh
  quietly ploopctl devices detach vm1
  mv vm1/root.hds .
  refused image-not-found $attach
  typed
  is "$(cat "$scratch/said")" "$images/root.hds"
  mv "$(cat "$scratch/said")" vm1/
  quietly $attach
}
recovery:unknown-field() {
  refused unknown-field ploopctl api POST /v1/devices --data '{"id":"vm2","descriptor":"vm2/DiskDescriptor.xml","nmae":"vm2"}'
  typed
  says version
}
