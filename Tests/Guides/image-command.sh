# docs/image-command.md. What other programs are named for there is asked of them by InteropTests.

image-command:ploopd-image() {
  mentioned
  mentioned
  mentioned
  mentioned
  mentioned
}
image-command:create() {
  mkdir -p "$scratch/images"
  cd "$scratch/images"
  mentioned
  mentioned
  typed
  says '^disk.hds: made, version 2, a disk of 10 GiB \(10737418240 bytes\) in clusters of 1 MiB$'
  qemu-img check -q -f parallels disk.hds
}
image-command:info() { mentioned; }
image-command:check() {
  mentioned
  mentioned
  mentioned
}
image-command:forced-repair() {
  cd "$scratch/images"
  rm disk.hds
  ploopd image create disk.hds --size 4M --cluster-size 64K >/dev/null
  quietly qemu-io -f parallels -c 'write -P 7 0 1M' disk.hds
  # One entry leads nowhere, another one to where a third one leads.
  poke disk.hds 68 ffff0000
  poke disk.hds 76 01000000
  local damaged plan steps
  damaged=$(sha256sum disk.hds)
  typed 2
  says 'cluster 1 has entry 65535'
  plan=$(sed -nE 's/.*--plan ([0-9a-f]+).*/\1/p' "$scratch/said")
  quietly ploopd image check --repair --force --plan "$plan" disk.hds
  [ "$(sha256sum disk.hds)" != "$damaged" ]
  pending=("${pending[@]//3f1c0a9d2b77/${plan:0:12}}")
  typed
  typed
  quietly ploopd image check disk.hds && return 1
  says 'cluster 1 has entry 65535'
  steps=$(grep -c 'has entry' "$scratch/said")
  [ "$steps" -eq 2 ]
}
image-command:map() {
  cd "$scratch/images"
  ploopd image create base.hds --size 8M >/dev/null
  ploopd image create top.hds --size 8M >/dev/null
  quietly qemu-io -f parallels -c 'write -P 7 0 1M' top.hds
  typed
  says '^0x0 +0x100000 +data +0x100000 +top.hds$'
  says '^0x100000 +0x700000 +hole'
  mentioned
}
