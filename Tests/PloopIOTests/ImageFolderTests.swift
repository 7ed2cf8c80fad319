import Glibc
import PloopIO
import TestSupport
import Testing

@Suite("A folder of images")
struct ImageFolderTests {
  private let keep: TemporaryFolder
  private let root: ImageFolder

  /// root/inner/image, and outside of root a file and links that lead there and back.
  init() throws {
    keep = try TemporaryFolder()
    try Tool.shell(
      """
      cd '\(keep.path)' && mkdir -p root/inner && echo secret > outside && echo image > root/image
      echo image > root/inner/image && mkfifo root/fifo
      ln -s ../outside root/out && ln -s image root/in && ln -s .. root/up && ln -s inner root/alias
      """)
    root = try ImageFolder(path: "\(keep.path)/root")
  }

  @Test("what lies beneath is opened, by a path with folders too")
  func beneath() throws {
    #expect(try root.open("image", writable: true).size() == 6)
    #expect(try root.open("inner/image", writable: false).size() == 6)
    #expect(try root.open("inner/../image", writable: false).size() == 6)
    #expect(try root.folder(beneath: "inner").open("image", writable: false).size() == 6)
    #expect(try root.folder(beneath: "").contains("image"))
  }

  @Test("what has a name keeps it, when another file is to have it that nothing has")
  func renamedToUnused() throws {
    let (one, other) = (try root.create("one"), try root.create("other"))
    let error = #expect(throws: IOError.self) { try root.rename("one", toUnused: "other") }
    #expect(error?.code == EEXIST)
    try root.rename("one", toUnused: "new")
    #expect(!root.contains("one"))
    #expect(try root.open("new", writable: false).identity == one.identity)
    #expect(try root.open("other", writable: false).identity == other.identity)
  }

  @Test(
    "nothing leads out, and no link is followed, wherever it leads",
    arguments: [
      "../outside", "inner/../../outside", "/etc/hostname", "out", "in", "up/outside",
      "alias/image", "up/root/image",
    ])
  func outside(name: String) throws {
    for writable in [false, true] {
      let error = #expect(throws: IOError.self) { _ = try root.open(name, writable: writable) }
      #expect(
        error.map { [EXDEV, ELOOP].contains($0.code) } == true, "\(String(describing: error))")
    }
    #expect(throws: IOError.self) { _ = try root.create(name) }
  }

  @Test("folders are held to the same", arguments: ["..", "up", "alias", "inner/../.."])
  func outsideFolders(name: String) throws {
    #expect(throws: IOError.self) { _ = try root.folder(beneath: name) }
    #expect(throws: IOError.self) { _ = try root.folder(beneath: "/\(name)") }
    #expect(throws: IOError.self) { _ = try root.makeFolder(beneath: "\(name)/new") }
  }

  @Test("a FIFO, a folder and a device node are no images, and opening them does not hang")
  func otherKinds() throws {
    for writable in [false, true] {
      for name in ["fifo", "inner"] {
        #expect(throws: IOError.self) { _ = try root.open(name, writable: writable) }
      }
      #expect(throws: IOError.self) {
        _ = try ImageFolder(path: "/dev").open("null", writable: writable)
      }
    }
  }

  @Test("creating refuses an existing name; replacing and renaming leave whole files only")
  func names() throws {
    let error = #expect(throws: IOError.self) { _ = try root.create("image") }
    #expect(error?.code == EEXIST)
    try root.replace("record", with: Array("one".utf8))
    try root.replace("record", with: Array("second".utf8))
    #expect(try root.open("record", writable: false).size() == 6)
    #expect(!root.contains("record.tmp"))
    try root.rename("record", to: "other")
    #expect(!root.contains("record") && root.contains("other"))
    try root.unlink("other")
    #expect(!root.contains("other"))
    _ = try root.makeFolder(beneath: "a/b/c")
    _ = try root.makeFolder(beneath: "a/b/c").create("image")
    #expect(try root.open("a/b/c/image", writable: false).size() == 0)
  }

  @Test("a folder that somebody has made is durable as well, once it was asked for")
  func folderOfAKilledProcess() throws {
    let trace = IOTrace()
    let folder = try ImageFolder(path: root.path, probe: trace)
    _ = try folder.makeFolder(beneath: "a/b")
    let made = trace.events.count
    // Whoever made it may have been killed before it was synced.
    _ = try folder.makeFolder(beneath: "a/b")
    let synced = trace.events.dropFirst(made).compactMap { event in
      if case .folderSynced(let path) = event { path } else { nil }
    }
    #expect(synced == [root.path, "\(root.path)/a"])
  }

  @Test("replacing puts content, file and name on the disk in that order")
  func replaceOrder() throws {
    let trace = IOTrace()
    let folder = try ImageFolder(path: root.path, probe: trace)
    try folder.replace("record", with: [1, 2, 3])
    let steps = trace.events.map { event in
      switch event {
      case .create: "create"
      case .write: "write"
      case .syncStarted: "sync"
      case .synced: "synced"
      case .rename: "rename"
      case .folderSynced: "folder"
      default: "other"
      }
    }
    #expect(steps == ["create", "write", "sync", "synced", "rename", "sync", "folder"])
  }
}
