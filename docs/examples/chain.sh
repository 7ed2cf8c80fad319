#!/bin/bash
# The life of a disk, by curl calls alone: it is created; three snapshots are taken while fio writes; the
# middle one is merged away backward and the newest forward, and the disk grows twice, while fio goes on; the
# service is killed in the middle of a last merge and started again; the job goes on by itself, and every byte
# is as fio wrote it.
#
#   docs/examples/chain.sh [FOLDER]
#
# PLOOPD names the program (ploopd), FOLDER an empty folder for everything, which is kept; without it there
# is one beneath /tmp, which is removed. Needs curl, fio and nbdcopy.
set -euo pipefail

ploopd=${PLOOPD:-ploopd}
folder=${1:-$(mktemp -d /tmp/ploopd-chain-XXXXXX)}
uri="nbd+unix:///vm?socket=$folder/nbd.sock"
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

# merge PARAMETERS [LIMITS]: begins to give a snapshot up, and prints the job.
merge() {
  api POST /v1/jobs "{\"type\":\"merge\",\"device\":\"vm\",\"params\":$1,\"limits\":${2:-{\}}}" | field id
}

# await JOB: until it has succeeded.
await() {
  local job
  while job=$(api GET "/v1/jobs/$1"); do
    case $(field state <<< "$job") in
      succeeded) return ;;
      failed | cancelled) echo "$job" >&2; return 1 ;;
    esac
    api GET "/v1/jobs/$1?after_revision=$(field revision <<< "$job")&wait=10" > /dev/null
  done
}

# guest OFFSET SIZE [OPTIONS]: writes so many MiB in random order, flushes and then verifies them. What was not
# flushed is what kill -9 may cost, as a power failure may.
guest() {
  fio --name=guest --ioengine=nbd --uri="$uri" --rw=randwrite --bs=16k --offset="$1m" --size="$2m" \
    --iodepth=8 --randseed=17 --end_fsync=1 --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
    --output="$folder/fio.log" "${@:3}" \
    > /dev/null
}

levels() { api GET /v1/devices/vm/deltas | grep -o '"level":' | wc -l; }

say() { echo "== $*"; }

mkdir -p "$folder/images" "$folder/state"
start
say "a disk of 64 MiB"
api POST /v1/devices '{"id":"vm","create":{"directory":"vm","size":67108864,"cluster_size":65536},"export":{"name":"vm"}}' > /dev/null

say "fio writes, and three snapshots are taken meanwhile"
guest 48 16
guest 0 48 --rate=6m & load=$!
names=(first middle newest)
snapshots=()
for name in "${names[@]}"; do
  sleep 1
  snapshots+=("$(api POST /v1/devices/vm/snapshots "{\"name\":\"$name\"}" | field uuid)")
  echo "$name: ${snapshots[-1]}"
done

say "the middle one is merged away backward, and the newest forward, while fio goes on"
await "$(merge "{\"snapshot\":\"${snapshots[1]}\",\"direction\":\"backward\"}")"
await "$(merge "{\"snapshot\":\"${snapshots[2]}\",\"direction\":\"forward\"}")"
[ "$(levels)" = 2 ]

say "the disk grows twice; the second time its index needs room where clusters are"
for size in 134217728 1610612736; do
  [ "$(api PATCH /v1/devices/vm "{\"size\":$size}" | field size)" = "$size" ]
done
wait "$load"
load=
say "fio has found every byte that it wrote"
nbdcopy "$uri" "$folder/before.raw"

say "the last merge; the service is killed in the middle of it"
job=$(merge "{\"snapshot\":\"${snapshots[0]}\"}" '{"bps":1048576}')
while done=$(api GET "/v1/jobs/$job"); [ "$(field done_clusters <<< "$done")" = 0 ]; do
  [ "$(field state <<< "$done")" != succeeded ]
  sleep 0.1
done
kill -9 "$service"
wait "$service" || true
start
say "it is back, and the job goes on by itself"
api PATCH "/v1/jobs/$job" '{"limits":{"bps":0}}' > /dev/null
await "$job"
[ "$(api GET "/v1/jobs/$job" | field interruptions)" = 1 ]
[ "$(levels)" = 1 ]

say "every byte is read again"
guest 0 48 --verify_only=1
guest 48 16 --verify_only=1
nbdcopy "$uri" "$folder/after.raw"
cmp "$folder/before.raw" "$folder/after.raw"
api DELETE /v1/devices/vm > /dev/null
kill "$service"
wait "$service"
service=
say "every byte is right"
