#!/bin/bash
# Backups of a disk, by curl calls alone: a full one and three increments while fio writes; the service is
# killed in the middle of the third increment and started again; the job begins it anew by itself. Then the disk
# is deleted, and all four points are restored and compared with what the disk was.
#
#   docs/examples/backup.sh [FOLDER]
#
# PLOOPD names the program (ploopd), FOLDER an empty folder for everything, which is kept; without it there
# is one beneath /tmp, which is removed. Needs curl, fio and nbdcopy.
set -euo pipefail

ploopd=${PLOOPD:-ploopd}
folder=${1:-$(mktemp -d /tmp/ploopd-backup-XXXXXX)}
service=
load=
end() {
  # shellcheck disable=SC2086
  kill -9 $service $load 2> /dev/null || true
  [ -n "${1:-}" ] || rm -rf "$folder"
}
trap 'end "${1:-}"' EXIT

start() {
  "$ploopd" serve --state-dir "$folder/state" --root "main=$folder/images" \
    --http-socket "$folder/http.sock" --nbd-socket "$folder/nbd.sock" \
    --http-listen none --nbd-listen none 2>> "$folder/log" &
  service=$!
  curl -sSf --retry 120 --retry-delay 1 --retry-all-errors -o /dev/null \
    --unix-socket "$folder/http.sock" http://localhost/readyz 2>> "$folder/log"
}

# api METHOD PATH [BODY]: prints the answer; one that is a problem fails.
api() {
  local body=()
  if [ -n "${3:-}" ]; then body=(-H 'Content-Type: application/json' -d "$3"); fi
  curl -sS --fail-with-body --max-time 120 --unix-socket "$folder/http.sock" -X "$1" \
    "${body[@]}" "http://localhost$2" || { echo "$1 $2 failed" >&2; return 1; }
}

# field NAME: the first member of that name in the answer on standard input.
field() { grep -o "\"$1\":[^,}]*" | sed -n 1p | cut -d : -f 2- | tr -d '"{}'; }

# await JOB: until it has succeeded; prints it.
await() {
  local job
  while job=$(api GET "/v1/jobs/$1"); do
    case $(field state <<< "$job") in
      succeeded) echo "$job"; return ;;
      failed | cancelled) echo "$job" >&2; return 1 ;;
    esac
    api GET "/v1/jobs/$1?after_revision=$(field revision <<< "$job")&wait=10" > /dev/null
  done
}

uri() { echo "nbd+unix:///$1?socket=$folder/nbd.sock"; }

# The guest: fio, which writes or verifies the upper half of the disk, in blocks that carry their own checksums.
guest=(fio --name=guest --thread --ioengine=nbd --rw=randwrite --bs=16k --offset=32m --size=32m --iodepth=8
  --randseed=17 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --output="$folder/fio.log")

# change NUMBER: new bytes into a part of the lower half, which nobody else writes.
change() {
  dd if=/dev/urandom of="$folder/lower.raw" bs=1M seek=$((5 * $1)) count=4 conv=notrunc status=none
  nbdcopy --flush "$folder/lower.raw" "$(uri vm)"
  cp "$folder/lower.raw" "$folder/lower.$1.raw"
}

backup() {
  api POST /v1/jobs "{\"type\":\"backup\",\"device\":\"vm\",\"params\":{\"target\":\"nas\"},\"limits\":${1:-{\}}}" \
    | field id
}

say() { echo "== $*"; }

mkdir -p "$folder/images" "$folder/state"
truncate -s 32M "$folder/lower.raw"
start
say "a disk of 64 MiB, and a folder for its backups"
api POST /v1/devices '{"id":"vm","create":{"directory":"vm","size":67108864,"cluster_size":65536},"export":{"name":"vm"}}' > /dev/null
api POST /v1/targets '{"name":"nas","type":"directory","path":"backups"}' > /dev/null
"${guest[@]}" --uri="$(uri vm)" --do_verify=0

say "a full backup and two increments, while fio writes"
"${guest[@]}" --uri="$(uri vm)" --do_verify=0 --rate=4m --time_based --runtime=600 2> /dev/null & load=$!
points=()
modes=(full incremental incremental)
for number in 0 1 2; do
  change "$number"
  points+=("$(backup)")
  job=$(await "${points[-1]}")
  echo "${points[-1]}: $(field mode_used <<< "$job"), $(field bytes_read <<< "$job") bytes read"
  [ "$(field mode_used <<< "$job")" = "${modes[number]}" ]
done

say "the service is killed in the middle of the third increment"
change 3
points+=("$(backup '{"bps":1048576}')")
while job=$(api GET "/v1/jobs/${points[-1]}"); [ "$(field done_clusters <<< "$job")" = 0 ]; do
  [ "$(field state <<< "$job")" != succeeded ]
  sleep 0.1
done
kill -9 "$load" "$service"
wait "$service" "$load" || true
load=
start
say "it is back, and the job begins the increment anew by itself"
api PATCH "/v1/jobs/${points[-1]}" '{"limits":{"bps":0}}' > /dev/null
job=$(await "${points[-1]}")
[ "$(field restarted <<< "$job")" = true ]
[ "$(field mode_used <<< "$job")" = incremental ]

say "the disk is deleted"
api DELETE /v1/devices/vm > /dev/null
rm -r "$folder/images/vm"

say "all four points are restored, and compared"
for number in 0 1 2 3; do
  id="restored$number"
  job=$(api POST /v1/jobs "{\"type\":\"restore\",\"params\":{\"target\":\"nas\",\"backup\":\"${points[number]}\",\"to\":{\"id\":\"$id\",\"directory\":\"$id\"}}}" | field id)
  await "$job" > /dev/null
  api POST /v1/exports "{\"name\":\"$id\",\"device\":\"$id\",\"readonly\":true}" > /dev/null
  nbdcopy "$(uri "$id")" "$folder/restored.raw"
  cmp -n 33554432 "$folder/lower.$number.raw" "$folder/restored.raw"
  # What fio was writing when it was killed may be there in part.
  [ "$number" = 3 ] || "${guest[@]}" --uri="$(uri "$id")" --verify_only=1
  echo "${points[number]}: every byte is right"
done
kill "$service"
wait "$service"
service=
say "all points are right"
