# docs/recovery.md, "Snapshots and chains".

recovery:snapshot-protected() {
  fresh
  snapshot=$(field uuid ploopctl snapshots create vm1 --name first --protect)
  refused snapshot-protected ploopctl snapshots delete vm1 "$snapshot" --yes --wait
  typed
  quietly ploopctl snapshots delete vm1 "$snapshot" --yes --wait
}
recovery:snapshot-has-branches() {
  fresh
  snapshot=$(field uuid ploopctl snapshots create vm1 --name first)
  quietly ploopctl snapshots create vm1 --name second
  quietly ploopctl snapshots switch vm1 "$snapshot" --keep-top-as third
  refused snapshot-has-branches ploopctl snapshots delete vm1 "$snapshot" --yes --wait
  typed
  says second
}
recovery:snapshot-not-possible() { mentioned; }
recovery:delta-is-top() {
  fresh
  quietly ploopctl snapshots create vm1 --name first
  refused delta-is-top ploopctl api POST /v1/devices/vm1/deltas/1/notify-merged --data '{"direction":"backward"}'
  typed
}
recovery:raw-not-allowed() {
  fresh
  quietly ploopctl devices detach vm1
  mv vm1/DiskDescriptor.xml descriptor
  as_service truncate -s 16M vm1/disk.raw
  quietly ploopctl devices attach vm1 --raw-base vm1/disk.raw --delta vm1/root.hds
  refused raw-not-allowed ploopctl api PATCH /v1/devices/vm1/deltas/0 --data '{"index":[{"cluster":0,"to":9}]}'
  typed
  says raw
}
