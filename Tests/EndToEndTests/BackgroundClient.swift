import TestSupport

/// A client in the background that says when it is in, and leaves when it is told to.
func startClient(_ folder: TemporaryFolder, _ uri: String, _ body: String) throws {
  try Tool.shell(
    """
    cd '\(folder.path)'; rm -f in leave; cat > client.py <<'END'
    import nbd, os, sys
    h = nbd.NBD(); h.set_uri_allow_local_file(True); h.connect_uri(sys.argv[1])
    \(body)
    END
    /usr/bin/python3 client.py '\(uri)' > client.out 2>&1 & echo $! > client.pid
    until [ -e in ]; do kill -0 $! || { cat client.out; exit 1; }; sleep 0.02; done
    """)
}
