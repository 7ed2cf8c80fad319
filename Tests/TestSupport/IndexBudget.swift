internal import Foundation
package import PloopDevice
package import PloopIO

/// How much of their indexes disks keep in memory in tests: `PLOOPD_INDEX_CACHE`, in bytes; 0 keeps no page that
/// needs not be there, so that everything is looked up in the files.
package enum IndexBudget {
  /// Nil where nobody has said.
  package static let bytes = ProcessInfo.processInfo.environment["PLOOPD_INDEX_CACHE"].flatMap {
    Int($0)
  }
}

extension FramePool {
  /// One for a disk of a test.
  package static var ofTests: FramePool {
    FramePool(budgetBytes: IndexBudget.bytes ?? AttachOptions.indexCacheBytes)
  }
}

extension AttachOptions {
  /// As tests attach: small clusters are shared as well, where that is possible.
  package static var ofTests: AttachOptions {
    var options = AttachOptions()
    options.indexCache = .ofTests
    options.sharing.keptBytes = 1
    options.sharing.movedBytes = 1
    return options
  }
}
