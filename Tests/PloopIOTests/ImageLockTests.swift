import Glibc
import PloopIO
import TestSupport
import Testing

@Suite("Locks on images")
struct ImageLockTests {
  private let keep: TemporaryFolder
  private let folder: ImageFolder

  init() throws {
    keep = try TemporaryFolder()
    try Tool.shell("qemu-img create -q -f parallels '\(keep.path)/image' 64M")
    folder = try ImageFolder(path: keep.path)
  }

  @Test("readers share an image; a writer excludes readers and writers, and releasing lets them in")
  func shares() throws {
    let files = try (0..<3).map { _ in try folder.open("image", writable: true) }
    try ImageLock.acquire(files[0], for: .read)
    try ImageLock.acquire(files[1], for: .read)
    #expect(throws: LockError.self) { try ImageLock.acquire(files[2], for: .write) }
    // Whoever was refused holds nothing.
    ImageLock.release(files[0])
    ImageLock.release(files[1])
    try ImageLock.acquire(files[1], for: .write)
    for use in [ImageLock.Use.read, .write] {
      #expect(throws: LockError.self) { try ImageLock.acquire(files[0], for: use) }
    }
    ImageLock.release(files[1])
    try ImageLock.acquire(files[0], for: .read)
  }

  @Test("locks go with their file, though a child between fork and exec still has it")
  func lockOfAChild() throws {
    var file: ImageFile? = try folder.open("image", writable: true)
    let child = try #require(file?.withDescriptor { dup($0) })
    defer { close(child) }
    try file.map { file in try ImageLock.acquire(file, for: .write) }
    let other = try folder.open("image", writable: true)
    #expect(throws: LockError.self) { try ImageLock.acquire(other, for: .read) }
    file = nil
    try ImageLock.acquire(other, for: .write)
  }

  @Test("QEMU is kept from an image that is written here, and reads along with a reader")
  func keepsQEMUOut() throws {
    let file = try folder.open("image", writable: true)
    func qemu(_ command: String, _ options: String = "") throws -> Tool.Result {
      try Tool.shell(
        "qemu-io -f parallels \(options) -c '\(command)' '\(keep.path)/image'", check: false)
    }
    try ImageLock.acquire(file, for: .write)
    #expect(try qemu("read 0 512", "-r").output.contains("lock"))
    ImageLock.release(file)
    try ImageLock.acquire(file, for: .read)
    #expect(try qemu("read 0 512", "-r").status == 0)
    #expect(try qemu("write 0 512").output.contains("lock"))
    ImageLock.release(file)
    #expect(try qemu("write 0 512").status == 0)
  }

  @Test("the lock beside a descriptor is exclusive for a writer, and absent without a descriptor")
  func descriptor() throws {
    #expect(try DescriptorLock.acquire(in: folder, exclusive: true) == nil)
    #expect(!folder.contains("DiskDescriptor.xml.lck"))
    try Tool.shell("touch '\(keep.path)/DiskDescriptor.xml'")
    do {
      let held = try DescriptorLock.acquire(in: folder, exclusive: true)
      #expect(held != nil)
      #expect(throws: LockError.self) { try DescriptorLock.acquire(in: folder, exclusive: false) }
      let busy = try Tool.shell(
        "flock -n '\(keep.path)/DiskDescriptor.xml.lck' true", check: false)
      #expect(busy.status == 1)
    }
    let (first, second) = (
      try DescriptorLock.acquire(in: folder, exclusive: false),
      try DescriptorLock.acquire(in: folder, exclusive: false)
    )
    #expect(first != nil && second != nil)
  }

  @Test("Disks of one process share OpenVZ's lock, and other processes see the strongest of them")
  func sharedDescriptorLock() throws {
    let temporary = try TemporaryFolder()
    let folder = try ImageFolder(path: temporary.path)
    try folder.replace(DescriptorLock.descriptorName, with: [])
    func others(may kind: String) throws -> Bool {
      try Tool.shell(
        "flock -n \(kind) '\(temporary.path)/DiskDescriptor.xml.lck' true", check: false
      ).status == 0
    }
    let locks = DescriptorLocks()
    var reader = try locks.acquire(in: folder, exclusive: false)
    #expect(try reader != nil && others(may: "-s") && !others(may: "-x"))
    var writer = try locks.acquire(in: folder, exclusive: true)
    #expect(try writer != nil && !others(may: "-s"))
    let second = try locks.acquire(in: folder, exclusive: false)
    reader = nil
    writer = nil
    #expect(try second != nil && !others(may: "-s"))
    withExtendedLifetime(second) {}
  }

  @Test("A reader keeps its lock when a writer beside it is refused")
  func refusedWriter() throws {
    let temporary = try TemporaryFolder()
    let folder = try ImageFolder(path: temporary.path)
    try folder.replace(DescriptorLock.descriptorName, with: [])
    let locks = DescriptorLocks()
    do {
      let reader = try locks.acquire(in: folder, exclusive: false)
      let foreign = try DescriptorLock.acquire(in: folder, exclusive: false)
      #expect(throws: LockError.self) { try locks.acquire(in: folder, exclusive: true) }
      #expect(throws: LockError.self) { try DescriptorLock.acquire(in: folder, exclusive: true) }
      withExtendedLifetime((reader, foreign)) {}
    }
    #expect(try DescriptorLock.acquire(in: folder, exclusive: true) != nil)
  }
}
