# docs/recovery.md, "Backups".

restored() {
  quietly ploopctl exports create restored vm1-restored
  quietly qemu-io -r -f raw -c "read -P ${1:-7} 0 4M" "${uri/vm1/restored}"
  says '4194304/4194304'
}
recovery:target-unreachable() {
  backed_up
  mv nas elsewhere
  echo 'a file in its place' >nas
  refused target-unreachable ploopctl backups list nas
  typed
  says Missing
  rm nas
  mv elsewhere nas
  quietly ploopctl backups list nas
}
recovery:backup-corrupt() {
  backed_up
  local file
  file=$(find nas -name '*.hds' | head -n 1)
  poke "$file" 1048676 ff
  refused backup-corrupt ploopctl run restore nas "$backup" --as vm2 --wait
  typed 7
  says backup-corrupt
  typed
  backup=$(ploopctl backups list nas --json | grep -oE '"id":"[^"]*"' | cut -d '"' -f 4 | grep -v "^$backup$")
  quietly ploopctl run restore nas "$backup" --as vm1-restored --wait
  restored
}
recovery:backup-incomplete() {
  backed_up
  typed
  says "$backup"
}
recovery:backup-mismatch() {
  backed_up
  quietly ploopctl devices create vm2 --size 32M --cluster-size 64K
  quietly ploopctl devices detach vm2
  refused backup-mismatch ploopctl run restore nas "$backup" --into vm2/DiskDescriptor.xml --wait --yes
  typed
  restored
}
recovery:backup-has-dependents() {
  backed_up
  write 8 4M
  quietly ploopctl run backup vm1 --target nas --wait
  refused backup-has-dependents ploopctl backups delete nas "$backup" --yes
  answered
}
recovery:backup-not-found() {
  backed_up
  refused backup-not-found ploopctl run restore nas 01ARZ3NDEKTSV4RRFFQ69G5FAV --as vm2 --wait
  typed
  says "$backup"
}
recovery:increment-not-possible() {
  backed_up
  local checkpoint
  checkpoint=$(field name ploopctl checkpoints list vm1)
  quietly ploopctl checkpoints delete vm1 "$checkpoint" --yes
  refused increment-not-possible ploopctl run backup vm1 --target nas --mode incremental --wait
  typed
  quietly ploopctl run backup vm1 --target nas --mode incremental --wait
}
recovery:push-backup-expired() {
  fresh
  write 7
  push=$(field uuid ploopctl push-backup start vm1 --on-deadline abort --deadline 1)
  # A guest that writes waits for its copy until the deadline.
  write 8
  refused push-backup-expired ploopctl api POST /v1/devices/vm1/push-backup/read --data "{\"uuid\":\"$push\"}"
  typed
  typed
}
recovery:push-backup-uuid-mismatch() {
  fresh
  quietly ploopctl push-backup start vm1
  refused push-backup-uuid-mismatch ploopctl push-backup stop vm1 another --abort
  typed
}
recovery:checkpoint-not-found() {
  fresh
  refused checkpoint-not-found ploopctl checkpoints delete vm1 another --yes
  typed
}
recovery:tracking-not-active() {
  fresh
  refused tracking-not-active ploopctl tracking stop vm1
  typed
  quietly ploopctl tracking stop vm1
}
