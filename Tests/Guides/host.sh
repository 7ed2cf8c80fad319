# For scripts/test-recovery: a host with a service on it, as docs/operations.md has it, and what situations are made of.
repository=$PWD
scratch=$(mktemp -d)
chmod 755 "$scratch"
service=
finish() {
  status=$?
  set +e
  for process in $service $(jobs -p); do kill "$process" 2>/dev/null; wait "$process" 2>/dev/null; done
  [ "$status" -eq 0 ] || { echo "-- at: ${at:-the start}: ${now:-}"; tail -n 15 "$scratch/said"; echo "-- the service:"; tail -n 12 "$scratch/log"; } >&2
  cd /
  umount -R /etc /srv /run /var/lib /var/log 2>/dev/null
  rm -rf --one-file-system "$scratch"
  exit "$status"
}
trap finish EXIT
now=
at=
: >"$scratch/said"
: >"$scratch/log"
ip link set lo up
cp -a /etc "$scratch/etc"
mount --bind "$scratch/etc" /etc
for folder in srv run var/lib var/log; do
  mkdir -p "$scratch/$folder"
  mount --bind "$scratch/$folder" "/$folder"
done
mkdir "$scratch/bin"
ln -s "$PLOOPD_OWN_HOST/ploopd" "$PLOOPD_OWN_HOST/ploopctl" "$scratch/bin/"
export PATH="$scratch/bin:$PATH"
unset PLOOPD_ADDRESS PLOOPD_TOKEN
images=/srv/ploop

# As the unit has it, but for what only systemd can do.
start() {
  install -d -o ploopd -g ploopd -m 755 /run/ploopd
  install -d -o ploopd -g ploopd -m 750 /var/lib/ploopd /var/log/ploopd
  runuser -u ploopd -- true
  setpriv --reuid ploopd --regid ploopd --init-groups --no-new-privs --bounding-set -all \
    ploopd serve --config /etc/ploopd/ploopd.yaml >>"$scratch/log" 2>&1 &
  service=$!
  until_ok "curl -sSf --max-time 120 -o /dev/null --unix-socket /run/ploopd/api.sock http://localhost/readyz"
}
stop() { kill "$service" && wait "$service"; service=; }
crash() { kill -KILL "$service" && { wait "$service" || true; }; service=; }

# until_ok COMMAND: until it succeeds, for two minutes at most.
until_ok() {
  local deadline=$((SECONDS + 120))
  until bash -c "$1" >"$scratch/said" 2>&1; do
    [ $SECONDS -lt $deadline ] && { [ -z "$service" ] || kill -0 "$service"; } || { echo "it did not come to: $1" >&2; return 1; }
    sleep 0.1
  done
}
quietly() { now=$*; "$@" >"$scratch/said" 2>&1; }
# refused CODE COMMAND…: the problem is had.
refused() {
  local code=$1 ended=0
  shift
  now=$*
  "$@" --json >"$scratch/said" 2>&1 </dev/null || ended=$?
  [ "$ended" -ne 0 ] && grep -qE "\"code\": ?\"$code\"" "$scratch/said" \
    || { echo "status $ended and not $code: $*" >&2; return 1; }
}
says() { grep -qE -- "$1" "$scratch/said" || { echo "not said: $1" >&2; return 1; }; }
is() { [ "$1" = "$2" ] || { echo "$1 instead of $2" >&2; return 1; }; }
# field NAME COMMAND…: the first member of this name in what it answers.
field() {
  local name=$1
  shift
  "$@" --json 2>>"$scratch/said" | grep -oE "\"$name\": ?(\"[^\"]*\"|[0-9]+)" | head -n 1 | sed -E 's/^[^:]*: ?"?([^"]*)"?$/\1/'
}
# last_job: the one that was made last; last_id: that of what was answered.
last_job() { ploopctl jobs list --json | grep -oE '"id":"[0-9A-Z]{26}"' | head -n 1 | cut -d '"' -f 4; }
last_id() { grep -oE '"id": ?"[^"]*"' "$scratch/said" | head -n 1 | cut -d '"' -f 4; }
api() { ploopctl api "$@"; }

# fresh: vm1 is a new disk of 16 MiB with an export, and nothing else is attached.
fresh() {
  local id
  for id in $( (ploopctl jobs list --state queued --json && ploopctl jobs list --state running --json) | grep -oE '[0-9A-Z]{26}' | sort -u); do
    quietly ploopctl jobs cancel "$id" && { quietly ploopctl jobs wait "$id" || true; }
  done
  for id in $(ploopctl devices list | awk 'NR > 1 { print $1 }'); do
    quietly ploopctl devices detach "$id" --hard --yes --patience 10
  done
  find "$images" -mindepth 1 -maxdepth 1 ! -name nas -exec rm -rf {} +
  quietly ploopctl devices create vm1 --size 16M --export vm1 "$@"
}
uri='nbd+unix:///vm1?socket=/run/ploopd/nbd.sock'
# write BYTE [OFFSET LENGTH]; reads likewise.
write() { quietly qemu-io -f raw -c "write -P $1 ${2:-0} ${3:-1M}" -c flush "$uri"; }
reads() { quietly qemu-io -r -f raw -c "read -P $1 ${2:-0} ${3:-1M}" "$uri" && ! grep -q 'Pattern verification failed' "$scratch/said"; }
# poke FILE OFFSET HEX: bytes of a file are others.
poke() { printf "$(sed 's/../\\x&/g' <<<"$3")" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
attach='ploopctl devices attach vm1 --descriptor vm1/DiskDescriptor.xml'
top=$images/vm1/root.hds
# damaged OFFSET HEX: vm1 is detached with data in its first clusters, and its file is damaged.
damaged() {
  fresh
  write 7 0 4M
  quietly ploopctl devices detach vm1
  poke "$top" "$1" "$2"
}
as_service() { runuser -u ploopd -- "$@"; }
# backed_up: vm1 is a new disk with data, and nas has one backup of it, $backup.
backed_up() {
  fresh
  write 7 0 4M
  quietly ploopctl api DELETE '/v1/targets/nas?backups=keep' || says target-not-found
  rm -rf nas
  quietly ploopctl targets create nas --directory nas
  quietly ploopctl run backup vm1 --target nas --wait
  backup=$(field id ploopctl backups list nas)
}
# hold: somebody is connected to vm1 until `release`.
hold() {
  mkfifo "$scratch/held" 2>/dev/null || true
  qemu-io -f raw ${1:+-r} "$uri" <"$scratch/held" >/dev/null 2>&1 &
  holder=$!
  exec 7>"$scratch/held"
  until_ok "ploopctl exports show vm1 --json | grep -q '\"peer\"'"
}
release() { exec 7>&-; wait "$holder" || true; }
# slowly COMMAND…: a job that cannot come to its end before `hurry`; it is $job.
slowly() {
  quietly "$@" --bps 1 --json
  job=$(last_id)
  until_ok "ploopctl jobs show $job --json | grep -q '\"running\"'"
}
hurry() { quietly ploopctl jobs set "$job" --bps 0; }
