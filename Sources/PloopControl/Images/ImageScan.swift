internal import Glibc
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Everything beneath the roots that is an image or a descriptor, as it lies there.
struct ImageScan {
  struct File {
    var info: ImageInfo
    let location: Roots.Location
    let identity: FileIdentity
    let stamp: FileStamp
  }

  /// A descriptor that can be read.
  struct Tree {
    let location: Roots.Location
    let descriptor: Descriptor
  }

  /// Deeper folders are not looked into, nor more files counted.
  static let depthLimit = 32
  static let fileLimit = 200_000

  private(set) var files: [File] = []
  private(set) var trees: [Tree] = []
  /// Folders in which somebody is in the middle of something, with the reason.
  private(set) var unsettled: [Roots.Location: String] = [:]
  /// Files that are being made: a journal says what of them is there.
  private(set) var begun: Set<Roots.Location> = []
  /// What could not be looked at; it may name anything.
  private(set) var problems: [String] = []

  init(_ roots: Roots) {
    for root in roots.names {
      let place = Roots.Location(root: root, components: [])
      do throws(ServiceError) {
        walk(place, try roots.folder(at: place, pointer: ""), depth: 0)
      } catch { problems.append(error.detail) }
    }
    addRaw(roots)
    files.sort { $0.info.path < $1.info.path }
  }

  private mutating func walk(_ place: Roots.Location, _ folder: ImageFolder, depth: Int) {
    let names: [String]
    do throws(IOError) { names = try folder.names().sorted() } catch {
      problems.append("\(error)")
      return
    }
    for name in names {
      guard files.count < ImageScan.fileLimit, depth < ImageScan.depthLimit else {
        problems.append("\(place.path): too much lies there to be looked at")
        return
      }
      let location = place.appending(name)
      do throws(IOError) {
        walk(location, try folder.folder(beneath: name), depth: depth + 1)
      } catch {
        switch error.kind {
        case .noFolder: look(at: location, in: folder)
        // Nothing is opened through a link, so nothing of the service lies behind one.
        case .link, .gone: continue
        case .other: problems.append("\(error)")
        }
      }
    }
  }

  private mutating func look(at location: Roots.Location, in folder: ImageFolder) {
    let name = location.name
    if name.hasSuffix(".intent") {
      unsettled[location.parent] = "a change of a chain beside it has not ended (\(name))"
    }
    if name.hasSuffix(".sums") {
      begun.insert(location.sibling(String(name.dropLast(".sums".count))))
    }
    // What is no regular file, or has gone meanwhile, is nobody's image.
    guard let file = try? folder.open(name, writable: false) else { return }
    if name.hasSuffix(".xml") {
      add(descriptor: location, file, in: folder)
    } else if let header = ImageScan.header(of: file) {
      add(image: location, file, header)
    }
  }

  /// Nil for a file that does not begin as an image does.
  private static func header(of file: ImageFile) -> Result<Header, FormatError>? {
    let buffer = AlignedBuffer(count: Header.byteCount)
    guard let count = try? file.read(into: buffer.region, at: 0) else { return nil }
    do throws(FormatError) {
      return .success(try Header(parsing: buffer.region.slice(0, count).bytes))
    } catch {
      return error.code == .signatureUnknown || error.code == .truncated ? nil : .failure(error)
    }
  }

  // MARK: Files

  private mutating func add(_ info: ImageInfo, _ location: Roots.Location, _ file: ImageFile) {
    guard let stamp = try? file.stamp() else { return }
    var info = info
    info.fileBytes = stamp.sizeBytes
    info.diskBytes = (try? file.allocatedBytes()) ?? 0
    info.modifiedAt = Double(stamp.seconds) + Double(stamp.nanoseconds) / 1e9
    files.append(
      File(info: info, location: location, identity: file.identity, stamp: stamp))
  }

  private mutating func add(
    image location: Roots.Location, _ file: ImageFile, _ header: Result<Header, FormatError>
  ) {
    var info = ImageInfo(
      path: location.path,
      kind: ImageScan.image(keeping: location.name) == nil ? .image : .savedIndex)
    switch header {
    case .failure(let error): info.problem = error.code.rawValue
    case .success(let header):
      info.version = header.version
      info.isUnclean = !header.isClean
      do throws(FormatError) {
        let geometry = try header.geometry(fileBytes: (try? file.size()) ?? 0)
        info.sizeBytes = geometry.sizeBytes
        info.clusterBytes = geometry.clusterBytes
      } catch { info.problem = error.code.rawValue }
    }
    add(info, location, file)
  }

  /// The image whose old index a file keeps, by its name; nil for one that keeps none.
  static func image(keeping name: String) -> String? {
    name.firstRange(of: ".index-backup").map { String(name[..<$0.lowerBound]) }
  }

  private mutating func add(
    descriptor location: Roots.Location, _ file: ImageFile, in folder: ImageFolder
  ) {
    var info = ImageInfo(path: location.path, kind: .descriptor)
    do throws(DeviceError) {
      let descriptor = try DescriptorFile(in: folder, name: location.name).read()
      trees.append(Tree(location: location, descriptor: descriptor))
      info.sizeBytes = descriptor.sizeSectors &* Geometry.sectorBytes
      info.clusterBytes = descriptor.clusterSectors * Geometry.sectorBytes
    } catch {
      // Any XML may lie there; what is called as a descriptor is one that is damaged.
      guard location.name == Descriptor.fileName else { return }
      info.problem = "descriptor-invalid"
      unsettled[location.parent] = "\(error)"
    }
    add(info, location, file)
  }

  /// Raw bases have no signature: those that somebody names.
  private mutating func addRaw(_ roots: Roots) {
    var known = Set(files.map(\.location))
    for tree in trees {
      for shot in tree.descriptor.shots where tree.descriptor.isRaw(shot) {
        guard let place = try? roots.resolve(shot.file, from: tree.location, pointer: ""),
          known.insert(place).inserted, let folder = try? roots.folder(of: place, pointer: ""),
          let file = try? folder.open(place.name, writable: false)
        else { continue }
        var info = ImageInfo(path: place.path, kind: .image)
        info.isRaw = true
        info.sizeBytes = try? file.size()
        add(info, place, file)
      }
    }
  }
}

extension IOError {
  fileprivate enum Kind { case noFolder, link, gone, other }

  /// Why a name was not opened as a folder.
  fileprivate var kind: Kind {
    switch code {
    case ENOTDIR: .noFolder
    case ELOOP, EXDEV: .link
    case ENOENT: .gone
    default: .other
    }
  }
}
