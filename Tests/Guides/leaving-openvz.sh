# docs/leaving-openvz.md: its blocks are run by scripts/test-readme; here is what it says between them.

leaving-openvz:leaving-openvz-with-ploop-images() { mentioned; }
leaving-openvz:what-you-need-and-what-you-have() {
  while [ ${#pending[@]} -gt 0 ]; do mentioned; done
}
leaving-openvz:look-before-anything-else() { mentioned; }
leaving-openvz:read-what-is-in-it() {
  untyped "wants the kernel's nbd module"
  mentioned
}
leaving-openvz:what-was-a-command-there() {
  while [ ${#pending[@]} -gt 0 ]; do
    typed
    says '^USAGE: '
  done
}
