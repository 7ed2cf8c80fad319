import TestSupport

/// A guest that knows what each of its blocks may read as, and takes that along from one life to the next.
struct FullDiskGuest {
  let model: String
  let uri: String

  /// - Parameters:
  ///   - body: what it does, by the functions below.
  ///   - more: arguments from the fourth on.
  func run(_ body: String, _ more: [String] = []) throws {
    let seed = UInt32.random(in: 0...UInt32.max)
    print("seed \(seed)")
    try Tool.python(Self.program + body, [uri, model, String(seed)] + more, seconds: 300)
  }

  /// A write that was refused may have left its bytes or the ones before in each page, and nobody
  /// else's; so may one whose connection broke.
  private static let program = """
    import nbd, sys, os, random, signal, subprocess, json, threading
    BLOCK, uri, path = 65536, sys.argv[1], sys.argv[2]
    random.seed(int(sys.argv[3]))
    def connect():
        h = nbd.NBD(); h.connect_uri(uri); return h
    def content(n): return (b"%016x" % n) * (BLOCK // 16)
    model = {int(k): v for k, v in json.load(open(path)).items()} if os.path.exists(path) else {}
    number = max([n for v in model.values() for n in v] + [0])
    lock = threading.Lock()
    def write(h, block, flags=0):
        global number
        with lock: number += 1; n = number
        before = model.get(block, [0])
        model[block] = before + [n]
        try:
            h.pwrite(content(n), block * BLOCK, flags)
        except nbd.Error as e:
            if e.errno == "ENOSPC": return False
            raise
        model[block] = [n]
        return True
    def check(h):
        for block, allowed in model.items():
            data = h.pread(BLOCK, block * BLOCK)
            for at in range(0, BLOCK, 4096):
                piece = data[at:at + 4096]
                assert any(piece == (content(n) if n else bytes(BLOCK))[:4096] for n in allowed), (block, at, allowed, piece[:16])
    def fill(connections, refusals, flags=0, refused=lambda: None):
        "Each writes blocks of its own, until it was refused some times."
        failed = []
        def run(index):
            h, left = connections[index], refusals
            while left:
                block = random.randrange(1024 // len(connections)) * len(connections) + index
                if write(h, block, flags): continue
                left -= 1
                refused()
        def guarded(index):
            try: run(index)
            except BaseException as e: failed.append(e)
        threads = [threading.Thread(target=guarded, args=(i,)) for i in range(len(connections))]
        for t in threads: t.start()
        for t in threads: t.join()
        return failed
    def save(): json.dump(model, open(path, "w"))
    def run(command): subprocess.run(["bash", "-c", command], check=True, stdout=subprocess.DEVNULL)

    """
}
