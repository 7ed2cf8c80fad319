# For scripts/test-recovery: the commands of a page, one after the other, and which were typed. What is to be done at each
# section of a page that has commands is a function, PAGE:SECTION; it types them, in the order of the page.
untyped=()
count=0
mentions=0
pages=0
pending=()
# page NAME: all sections of docs/NAME.md; of docs/recovery.md those in $only, where there are any.
page() {
  local guide=$1 section
  python3 "$repository/Tests/Guides/commands.py" "$repository/docs/$guide.md" >"$scratch/$guide.commands"
  pages=$((pages + 1))
  for section in $(cut -f 1 "$scratch/$guide.commands" | awk '!seen[$1]++'); do
    [ -z "$only" ] || [ "$guide" != recovery ] || [[ " $only " = *" $section "* ]] || continue
    at="docs/$guide.md, $section"
    declare -F "$guide:$section" >/dev/null || { echo "$at: nobody types its commands" >&2; exit 1; }
    mapfile -t pending < <(awk -F '\t' -v section="$section" '$1 == section { print $2 }' "$scratch/$guide.commands")
    cd "$images" 2>/dev/null || true
    "$guide:$section"
    [ ${#pending[@]} -eq 0 ] || { echo "$at: nobody types: ${pending[0]}" >&2; exit 1; }
  done
}
next_command() {
  [ ${#pending[@]} -gt 0 ] || { echo "$at has no more commands" >&2; exit 1; }
  now=${pending[0]}
  pending=("${pending[@]:1}")
}
# typed [STATUS]: the next command of the section, with the names of the situation, in $PWD; it ends with STATUS, or well.
typed() {
  next_command
  local ended=0
  # Who is root here has no sudo.
  now=${now#sudo }
  now=${now//01KAR7/${job:-}}
  now=${now//01KAT9/${backup:-}}
  now=${now//'{5fba}'/${snapshot:-}}
  now=${now//2f0c9a1e/${push:-}}
  if [ -n "${answer:-}" ]; then
    # Where somebody is asked it is on a terminal.
    printf '%s\n' "$answer" | timeout 120 script -qefc "$now" /dev/null >"$scratch/said" 2>&1 || ended=$?
  else
    timeout 120 bash -euo pipefail -c "$now" >"$scratch/said" 2>&1 </dev/null || ended=$?
  fi
  [ "$ended" -eq "${1:-0}" ] || { echo "it ended with $ended: $now" >&2; exit 1; }
  count=$((count + 1))
}
# answered [STATUS]: likewise, and the question that it asks is answered with yes.
answered() { local answer=yes; typed "$@"; }
# untyped REASON: the next command is not typed here.
untyped() {
  next_command
  untyped+=("${at%%,*}: $now: $1")
}
# mentioned: likewise, because the page says no more than that there is such a command.
mentioned() {
  next_command
  mentions=$((mentions + 1))
}
told() {
  echo "not typed, and why:"
  printf '  %s\n' "${untyped[@]}"
  echo "recovery: $count commands of $pages pages typed, ${#untyped[@]} not, $mentions named, in $SECONDS s"
}
