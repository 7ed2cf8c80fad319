# For scripts/test and scripts/test-system: steps with a name, what each of them said and how long it took, and which failed.
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
failed=()
export PATH="$PATH:/usr/sbin:/sbin"

step() { # name, command...
  local name=$1
  shift
  local start=$SECONDS
  if "$@" 2>&1 | tee "$logs/step $name"; then
    echo "== $name: ok, $((SECONDS - start)) s"
  else
    echo "== $name: FAILED, $((SECONDS - start)) s"
    failed+=("$name")
  fi
}

# A tool that is missing fails the whole.
need() { # tool...
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || failed+=("missing tool $tool")
  done
}

# What a step that failed said last is said again: of a log that somebody cut short there is only the end.
tell_failures() {
  local name
  for name in "${failed[@]}"; do
    [ ! -s "$logs/step $name" ] || { echo "-- $name ended with:" && tail -n 25 "$logs/step $name"; }
    echo "FAILED: $name"
  done
}
