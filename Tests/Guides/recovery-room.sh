# docs/recovery.md, "There is no room".

recovery:insufficient-space() {
  fresh
  write 7 0 4M
  quietly ploopctl snapshots create vm1 --name first
  mkdir small
  mount -t tmpfs -o size=64k,mode=777 none small
  refused insufficient-space ploopctl devices create vm2 --size 64M --directory small/vm2
  umount small
  typed
  typed
  typed
  reads 7 0 4M
}
# A file with as many clusters as an index can name has two TiB at least; here it is not full.
recovery:image-full() {
  fresh
  write 7
  typed
  write 8 1M
  reads 7
}
recovery:too-many-deltas() {
  fresh
  quietly ploopctl snapshots create vm1 --name first
  typed
  says first
  typed
}
recovery:too-many-devices() { fresh; typed; says vm1; }
recovery:too-many-jobs() { typed; }
recovery:checkpoint-unsupported() {
  fresh
  quietly ploopctl devices create vm2 --size 128T --cluster-size 64M
  refused checkpoint-unsupported ploopctl checkpoints create vm2 fine --granularity 64K
  quietly ploopctl checkpoints create vm1 coarse
  typed
  says coarse
}
