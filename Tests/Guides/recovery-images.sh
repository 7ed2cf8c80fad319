# docs/recovery.md, "The disk, or its files, are not in order".

# bit_rot: the read-only delta of vm1 is not what it was when it was hashed; the job that has found that is $job.
bit_rot() {
  backed_up
  snapshot=$(field uuid ploopctl snapshots create vm1 --name first)
  quietly ploopctl run hash vm1 --deltas --wait
  # Nobody has written it, as far as its times go.
  touch -r "$top" "$scratch/times"
  poke "$top" 1048676 ff
  touch -r "$scratch/times" "$top"
  refused delta-damaged ploopctl run hash vm1 --deltas --wait
  job=$(last_job)
}
recovery:what-to-do-about-each-problem() {
  bit_rot
  typed
  says delta-damaged
  typed
  typed
  says '"version"'
}
recovery:image-unclean() {
  damaged 44 596e6f74
  refused image-unclean $attach
  typed
  reads 7 0 4M
}
recovery:image-corrupt() {
  damaged 64 ffff0000
  refused image-corrupt $attach
  typed
  says forced_repair
  typed 2
  says 'cluster 0'
}
recovery:repair-plan-outdated() {
  damaged 64 ffff0000
  local check="ploopctl run check --descriptor vm1/DiskDescriptor.xml --wait" plan
  plan=$(field plan $check)
  poke "$top" 68 ffff0000
  refused repair-plan-outdated $check --force-plan "$plan" --yes
  typed
  plan=$(sed -n 's/^ *plan: *//p' "$scratch/said")
  quietly $check --force-plan "$plan" --yes
  quietly $attach --export vm1
  reads 7 2M 2M
}
recovery:delta-damaged() {
  bit_rot
  typed
  says "$backup"
  typed
  quietly ploopctl exports create restored vm1-restored
  quietly qemu-io -r -f raw -c 'read -P 7 0 4M' "${uri/vm1/restored}"
  says '4194304/4194304'
}
recovery:index-mismatch() {
  fresh
  write 7 0 2M
  quietly ploopctl snapshots create vm1 --name first
  refused index-mismatch ploopctl api PATCH /v1/devices/vm1/deltas/0 --data '{"index":[{"cluster":0,"to":2}]}'
  typed
  reads 7
}
recovery:image-signature-unknown() {
  damaged 0 00
  refused image-signature-unknown $attach
  as_service truncate -s 16M vm1/disk.raw
  as_service ploopd image create vm1/top.hds --size 16M >/dev/null
  typed
  quietly ploopctl devices detach vm1
  as_service qemu-img create -q -f qcow2 vm1/disk.qcow2 16M
  typed
  quietly chown ploopd vm1/disk.hds
  quietly ploopctl devices attach vm1 --delta vm1/disk.hds
}
recovery:image-truncated() {
  damaged 0 57
  truncate -s 4096 "$top"
  refused image-truncated $attach
  typed 2
  says '4096 bytes'
}
recovery:image-index-too-short() {
  damaged 36 00001000
  refused image-index-too-short $attach
  typed 2
  says '16 index entries for a disk of 512 clusters'
}
recovery:image-first-block-invalid() {
  damaged 48 00100000
  quietly ploopctl devices create vm2 --size 16M
  quietly ploopctl devices detach vm2
  refused image-first-block-invalid $attach
  typed 2
  says 'sector 4096'
  typed
}
recovery:image-conversion-interrupted() {
  damaged 52 02
  poke "$top" 44 596e6f74
  refused image-conversion-interrupted $attach
  untyped "OpenVZ's kernel or tool has to have been interrupted in it"
}
recovery:image-raw-size-misaligned() {
  fresh
  quietly ploopctl devices detach vm1
  as_service truncate -s 15999488 vm1/disk.raw
  local chain='ploopctl devices attach vm1 --raw-base vm1/disk.raw --delta vm1/root.hds'
  mv vm1/DiskDescriptor.xml descriptor
  refused image-raw-size-misaligned $chain
  typed
  quietly $chain
}
recovery:geometry-mismatch() {
  fresh
  quietly ploopctl snapshots create vm1 --name first
  quietly ploopctl devices detach vm1
  as_service rm vm1/root.hds
  as_service ploopd image create vm1/root.hds --size 32M >/dev/null
  refused geometry-mismatch $attach
  typed 2
  says geometry-mismatch
  typed
}
recovery:descriptor-invalid() {
  fresh
  write 7
  quietly ploopctl snapshots create vm1 --name first
  write 8 1M
  quietly ploopctl devices detach vm1
  mv vm1/root.hds.* vm1/root.hds.snap
  echo no >vm1/DiskDescriptor.xml
  refused descriptor-invalid $attach
  typed
  quietly ploopctl exports create vm1 vm1
  reads 7 && reads 8 1M
}
# What fails here is no disk: there is none that could be told to. The way back is the same.
recovery:io-error() {
  fresh
  write 7
  typed
  typed
  typed
  reads 7
}
recovery:device-failed() {
  fresh
  write 7
  crash
  mv vm1/root.hds elsewhere
  start
  refused device-failed ploopctl snapshots create vm1
  mv elsewhere vm1/root.hds
  typed
  says failed
  typed
  typed
  reads 7
}
