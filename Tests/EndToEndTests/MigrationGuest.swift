import PloopIO
import TestSupport

/// A guest that writes and trims a disk in the background, and knows what it holds: every byte of what was answered,
/// and the one request that was not.
struct MigrationGuest {
  private let folder: String

  /// Begins, and has written something when this returns.
  ///
  /// - Parameters:
  ///   - raw: what the disk holds now.
  ///   - folder: of the guest's own.
  init(_ uri: String, holding raw: String, in folder: String) throws {
    self.folder = folder
    try Tool.shell(
      """
      mkdir -p '\(folder)'; cd '\(folder)'; rm -f in leave model pending; cp '\(raw)' start
      cat > guest.py <<'END'
      import nbd, os, random, sys
      h = nbd.NBD(); h.connect_uri(sys.argv[1])
      model = bytearray(open("start", "rb").read()); size = len(model)
      random.seed(int(sys.argv[2])); done = 0; pending = None
      while not os.path.exists("leave") and pending is None:
          offset = random.randrange(size); length = min(size - offset, random.randrange(1, 100000))
          if random.randrange(8) == 0:
              data = bytes(length); cookie = h.aio_zero(length, offset)
          else:
              data = random.randbytes(length); cookie = h.aio_pwrite(data, offset)
          try:
              while not h.aio_command_completed(cookie):
                  h.poll(50)
                  if os.path.exists("leave"):
                      pending = (offset, data); break
          # Its disk is gone.
          except nbd.Error: pending = (offset, data)
          if pending is None: model[offset:offset + length] = data
          done += 1
          if done == 20: open("in", "w").close()
      open("model.part", "wb").write(model)
      if pending:
          open("pending", "wb").write(pending[1]); open("offset", "w").write(str(pending[0]))
      os.rename("model.part", "model")
      os._exit(0)
      END
      /usr/bin/python3 guest.py '\(uri)' 1 > guest.out 2>&1 & echo $! > guest.pid
      until [ -e in ]; do kill -0 $! || { cat guest.out; exit 1; }; sleep 0.02; done
      """, seconds: 300)
  }

  /// Ends it, whether its last request is answered or not.
  func leave() throws {
    try Tool.shell(
      """
      cd '\(folder)'; touch leave
      until [ -e model ]; do kill -0 $(cat guest.pid) || { cat guest.out; exit 1; }; sleep 0.02; done
      """, seconds: 300)
  }

  /// A disk holds what it has written; what was not answered it has as a whole, or not at all.
  func expect(in raw: String) throws {
    try Tool.shell(
      """
      cd '\(folder)'; cat > compare.py <<'END'
      import os, sys
      model = bytearray(open("model", "rb").read()); found = open(sys.argv[1], "rb").read(len(model))
      if model != found and os.path.exists("pending"):
          data = open("pending", "rb").read(); offset = int(open("offset").read())
          model[offset:offset + len(data)] = data
      if model != found:
          wrong = [i for i in range(0, len(model), 4096) if model[i:i + 4096] != found[i:i + 4096]]
          print("differs in", len(wrong), "blocks, the first at", wrong[:3]); sys.exit(1)
      END
      /usr/bin/python3 compare.py '\(raw)'
      """, seconds: 300)
  }
}
