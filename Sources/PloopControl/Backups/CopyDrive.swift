internal import PloopBackup
internal import PloopIO

/// Drives a copy for a job: says how far it is, hears what it is wanted to do, and commits now and then.
struct CopyDrive {
  /// Why a copy did not come to its end.
  enum Stop: Error {
    case job(JobStop)
    case copy(BackupError)
  }

  /// Bytes between two looks at what is wanted.
  private static let stepBytes: UInt64 = 8 << 20
  /// What a crash costs at most: so much, or what was copied in so long.
  private static let commitBytes: UInt64 = 32 << 20
  private static let commitNanoseconds: UInt64 = 1_000_000_000

  private let control: JobControl
  private let clusterShift: UInt64
  /// Bytes that were said to be done.
  private var told: UInt64 = 0

  init(_ control: JobControl, clusterShift: Int) {
    self.control = control
    self.clusterShift = UInt64(clusterShift)
  }

  /// Copies all that is left, and commits it. Finishing is the caller's; after an error the copy is
  /// abandoned, and may be opened anew.
  mutating func run(_ copy: BackupCopy) throws(Stop) {
    // What an earlier attempt has copied is done, and nobody waits for it.
    tell(copy, isCharged: false)
    do throws(Stop) { try proceed(copy) } catch {
      copy.abandon()
      throw error
    }
  }

  private mutating func proceed(_ copy: BackupCopy) throws(Stop) {
    var committed = copy.progress.bytesRead
    var committedAt = monotonicNanoseconds()
    var isMore = true
    while isMore {
      do throws(JobStop) { try control.checkpoint() } catch {
        // What was copied need not be copied again.
        try? copy.commit()
        throw .job(error)
      }
      do throws(BackupError) {
        isMore = try copy.step(limitBytes: CopyDrive.stepBytes)
        tell(copy, isCharged: true)
        let now = monotonicNanoseconds()
        let fresh = copy.progress.bytesRead - committed
        if !isMore || fresh >= CopyDrive.commitBytes
          || now - committedAt >= CopyDrive.commitNanoseconds
        {
          try copy.commit()
          control.persist()
          committed = copy.progress.bytesRead
          committedAt = now
        }
      } catch { throw .copy(error) }
    }
  }

  private mutating func tell(_ copy: BackupCopy, isCharged: Bool) {
    let done = copy.progress.bytesRead
    guard done > told else { return }
    let fresh = (clusters: (done - told) >> clusterShift, bytes: done - told)
    control.advance(
      clusters: fresh.clusters, bytes: fresh.bytes, charging: isCharged ? fresh : (0, 0))
    told = done
  }
}
