internal import Glibc
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// The border between what a disk or a file says and what the service says.

extension ServiceError {
  /// An image or its folder could not be opened.
  init(opening path: String, _ error: IOError, pointer: String) {
    let words = IOError.text(of: error.code)
    switch error.code {
    case ENOENT, ENOTDIR:
      self.init(.imageNotFound, "\(path): \(words)", errno: "ENOENT", pointer: pointer)
    case EXDEV, ELOOP:
      self.init(
        .pathOutsideRoot, "\(path) leads through a link, or out of its root",
        remedy: "name the file itself, beneath its root", errno: "EXDEV", pointer: pointer)
    case EISDIR, EINVAL, ENXIO:
      self.init(.imageUnreadable, "\(path) is no regular file", errno: "EBADF", pointer: pointer)
    case EACCES, EPERM, EROFS, ETXTBSY:
      self.init(.imageUnreadable, "\(path): \(words)", errno: "EACCES", pointer: pointer)
    case ENAMETOOLONG:
      self.init(.valueImpossible, "\(path): \(words)", pointer: pointer)
    default:
      self.init(error)
    }
  }

  init(_ error: IOError) {
    if error.isOutOfSpace {
      self.init(.insufficientSpace, "\(error)", errno: "ENOSPC")
    } else {
      self.init(.ioError, "\(error)", errno: "EIO")
    }
  }

  init(_ error: DeviceError) {
    switch error.kind {
    case .format(let format, let level):
      var facts: [String: Fact] = ["level": .number(UInt64(level))]
      if let fault = format.fault {
        facts["fault"] = .text(fault.kind.rawValue)
        facts["cluster"] = .number(fault.cluster)
        facts["entry"] = .number(UInt64(fault.entry))
      }
      self.init(Code(rawValue: format.code.rawValue), error.detail, errno: "EPROTO", facts: facts)
    case .descriptor(let descriptor):
      self.init(Code(rawValue: descriptor.code.rawValue), error.detail)
    case .locked:
      self.init(
        .imageInUse, error.detail, cause: "another program holds a lock on it", errno: "EBUSY")
    case .sameFileTwice: self.init(.valueImpossible, error.detail, pointer: "/deltas")
    case .tooManyDeltas:
      self.init(.tooManyDeltas, error.detail, errno: "EMFILE", pointer: "/deltas")
    case .rawNotBase: self.init(.rawNotBase, error.detail, errno: "EMFILE", pointer: "/deltas")
    case .readOnly: self.init(.deviceReadOnly, error.detail, errno: "EROFS")
    case .nothingToMerge: self.init(.nothingToMerge, error.detail, errno: "ENOENT")
    case .refused(let refusal, let entry):
      self.init(
        Code(rawValue: refusal.rawValue), error.detail, errno: refusal.errno,
        pointer: entry.map { "/index/\($0)" })
    case .shrinks: self.init(.shrinkNotSupported, error.detail, errno: "EINVAL", pointer: "/size")
    case .size(let fault): self.init(fault, error.detail, pointer: "/size")
    case .imageFull: self.init(.imageFull, error.detail, errno: "EFBIG")
    case .outOfSpace: self.init(.insufficientSpace, error.detail, errno: "ENOSPC")
    case .timeout: self.init(.drainTimeout, error.detail, errno: "EBUSY")
    case .io, .degraded: self.init(.ioError, error.detail, errno: "EIO")
    case .detached: self.init(.deviceBusy, error.detail, errno: "EBUSY")
    case .rotten(let cluster): self.init(rotten: cluster, error.detail)
    case .otherPlan:
      self.init(
        .repairPlanOutdated, error.detail, remedy: "check the images again, and read the new plan",
        pointer: "/params/plan")
    case .slow: self.init(.deviceBusy, error.detail)
    case .checkpoint(let problem):
      switch problem {
      case .exists: self.init(.checkpointExists, error.detail, errno: "EEXIST")
      case .missing: self.init(.checkpointNotFound, error.detail, errno: "ENOENT")
      case .unsupported: self.init(.checkpointUnsupported, error.detail, errno: "EFBIG")
      case .failed: self.init(.ioError, error.detail, errno: "EIO")
      }
    }
  }
}

extension ServiceError {
  /// There can be no disk of a size.
  ///
  /// - Parameter pointer: to the member that says the size.
  init(_ fault: NewDiskFault, _ detail: String, pointer: String) {
    switch fault {
    case .clusterSize:
      self.init(.invalidValue, "a cluster is a power of two from 4096 to 67108864 bytes")
    case .empty: self.init(.invalidValue, "the disk has no bytes", pointer: pointer)
    case .tooLarge(let limit):
      self.init(
        .sizeTooLarge, "\(detail); \(limit) are the most", errno: "EINVAL", pointer: pointer,
        facts: ["limit_bytes": .number(limit)])
    case .misaligned(let nearest):
      self.init(
        .sizeMisaligned, "\(detail): that is no whole number of clusters", errno: "EINVAL",
        pointer: pointer, facts: ["nearest": .numbers(nearest)])
    }
  }
}

extension DeviceError.Refusal {
  /// The name of the error number that the kernel's driver gives.
  fileprivate var errno: String {
    switch self {
    case .running: "EBUSY"
    case .noSuchDelta, .nothingBelow: "ENOENT"
    case .isTop, .wrongDirection, .outOfRange, .notMapped, .invalid: "EINVAL"
    case .mismatch, .notIdentical, .rawNotAllowed: "EPROTO"
    case .overlap: "EEXIST"
    case .unrecorded: "EIO"
    }
  }
}

/// Calls a disk and converts its errors.
func converting<Result>(
  _ body: () throws(DeviceError) -> Result
) throws(ServiceError) -> Result {
  do throws(DeviceError) { return try body() } catch { throw ServiceError(error) }
}

extension ServiceError {
  /// A cluster of a delta is not what it was when the delta was hashed.
  init(rotten cluster: UInt64, _ detail: String) {
    self.init(
      .deltaDamaged, detail, cause: "the disk that it lies on has changed it by itself",
      remedy: "restore the cluster from a backup; nothing was overwritten with it", errno: "EIO",
      facts: ["cluster": .number(cluster)])
  }
}
