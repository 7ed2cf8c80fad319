# docs/recovery.md, "Somebody is in the way".

recovery:device-busy() {
  fresh
  write 7 0 8M
  slowly ploopctl run hash vm1
  until_ok "ploopctl snapshots create vm1 --name meanwhile --json | grep -q device-busy"
  refused device-busy ploopctl snapshots create vm1 --name second
  typed
  hurry
  typed
  quietly ploopctl snapshots create vm1 --name second
}
recovery:device-in-use() {
  fresh
  hold
  refused device-in-use ploopctl devices detach vm1
  answered
  release
}
recovery:export-in-use() {
  fresh
  hold
  refused export-in-use ploopctl exports delete vm1
  typed
  answered
  release
}
recovery:device-running() {
  fresh
  quietly ploopctl devices detach vm1
  as_service mkdir chain
  as_service ploopd image create chain/base.hds --size 16M >/dev/null
  as_service ploopd image create chain/top.hds --size 16M >/dev/null
  quietly ploopctl devices attach vm1 --delta chain/top.hds --export vm1
  reads 0
  local below='{"path":"chain/base.hds"}'
  refused device-running ploopctl api POST /v1/devices/vm1/deltas --data "$below"
  typed
  quietly ploopctl api POST /v1/devices/vm1/deltas --data "$below"
  typed
  reads 0
}
recovery:image-in-use() {
  fresh
  quietly ploopctl devices detach vm1
  mkfifo "$scratch/image" 2>/dev/null || true
  qemu-io -f parallels "$top" <"$scratch/image" >/dev/null 2>&1 &
  holder=$!
  exec 7>"$scratch/image"
  until_ok "fuser $top"
  until_ok "! ploopd image check --repair $top"
  refused image-in-use $attach
  typed
  says qemu-io
  release
  quietly $attach
}
recovery:image-has-children() {
  fresh
  write 7
  snapshot=$(field uuid ploopctl snapshots create vm1 --name first)
  write 8
  quietly ploopctl devices detach vm1
  refused image-has-children ploopctl devices attach vm1 --delta vm1/root.hds
  typed
  quietly ploopctl exports create vm1 vm1 --readonly
  reads 7
}
recovery:image-not-orphaned() {
  fresh
  refused image-not-orphaned ploopctl run clean vm1/root.hds --yes --wait
  typed
}
recovery:device-exists() {
  fresh
  refused device-exists ploopctl devices create vm1 --size 16M --directory vm3
  typed
}
recovery:export-exists() {
  fresh
  refused export-exists ploopctl exports create vm1 vm1
  typed
  says vm1
}
recovery:target-exists() {
  backed_up
  refused target-exists ploopctl targets create nas2 --directory nas/within
  typed
  says nas
}
recovery:target-in-use() {
  backed_up
  slowly ploopctl run backup vm1 --target nas --mode full
  refused target-in-use ploopctl targets delete nas --yes
  hurry
  typed
}
recovery:push-backup-active() {
  fresh
  quietly ploopctl push-backup start vm1
  refused push-backup-active ploopctl push-backup start vm1
  typed
  push=$(sed -nE 's/^uuid: *//p' "$scratch/said")
  typed
  quietly ploopctl push-backup start vm1
}
recovery:tracking-active() {
  fresh
  quietly ploopctl tracking start vm1
  refused tracking-active ploopctl tracking start vm1
  typed
  quietly ploopctl tracking start vm1
}
recovery:not-suspended() {
  fresh
  quietly ploopctl snapshots create vm1 --name first
  refused not-suspended ploopctl api POST /v1/devices/vm1/flip-upper-deltas
  typed
  refused resume-not-prohibited ploopctl api POST /v1/devices/vm1/flip-upper-deltas
}
recovery:resume-prohibited() {
  fresh
  quietly ploopctl devices suspend vm1
  quietly ploopctl devices set vm1 --noresume
  refused resume-prohibited ploopctl devices resume vm1
  typed
  quietly ploopctl devices resume vm1
}
recovery:resume-not-prohibited() {
  fresh
  write 7
  quietly ploopctl snapshots create vm1 --name first
  quietly ploopctl devices suspend vm1
  refused resume-not-prohibited ploopctl api POST /v1/devices/vm1/flip-upper-deltas
  typed
  quietly ploopctl api POST /v1/devices/vm1/flip-upper-deltas || says flip-overlap
}
