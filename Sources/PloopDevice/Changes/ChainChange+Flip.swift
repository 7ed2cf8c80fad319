package import PloopFormat
package import PloopIO

// The top and the delta below it change places (docs/crash-safety.md).

extension ChainChange {
  /// Has the top and the delta below it change places: guests write the older file from now on. The
  /// snapshot between the two is given up.
  ///
  /// - Parameters:
  ///   - device: suspended.
  ///   - guid: of the delta below the top.
  ///   - deadline: by when requests in flight have to end.
  /// - Throws: `.refused(.overlap)` where the older delta has clusters that the disk does not read from
  ///   there; `.refused(.rawNotAllowed)` where it is raw. The chain is as it was then.
  package func flip(
    _ device: Device, giving guid: GUID, until deadline: Deadline
  ) throws(DeviceError) -> Made {
    let base = try TopFlip.base(of: device.chain)
    let before = try ChainChange.settle(file)
    let descriptor = before.descriptor
    guard let shot = descriptor.shot(guid), descriptor.shot(descriptor.topGUID)?.parent == guid
    else {
      throw DeviceError(
        DescriptorError(.notPossible, "\(guid) is not what the top builds on"), path: file.path)
    }
    guard try ChainChange.base(of: shot, beside: file).file.identity == base.file.identity else {
      throw DeviceError(
        DescriptorError(.notPossible, "\(shot.file) lies in another folder"), path: file.path)
    }
    var changed = descriptor
    try describing { () throws(DescriptorError) in
      if shot.mark == nil { try changed.mark(guid, as: .temporary) }
      try changed.flipTop()
    }
    let saved = ChainChange.savedIndex(beside: file)
    let tops = [shot.file, descriptor.shot(descriptor.topGUID)?.file].compactMap { $0 }
    var intent = self.intent(
      .flip, guid, before,
      files: [saved, "\(saved).tmp"] + CheckpointMove.leftovers(beside: tops))
    intent.formerFile = shot.file
    return try making(intent) { () throws(DeviceError) in
      let flip = try TopFlip(of: device)
      let pause = try flip.run(
        saving: shot.mark == nil ? saved : nil, descriptor: file, becoming: changed, until: deadline
      ) { () throws(DeviceError) in
        guard shot.mark == nil else { return }
        try giveUp(guid, in: descriptor)
      }
      return Made(descriptor: changed, pauseNanoseconds: pause, intent: intent)
    } keepIf: {
      device.failure != nil
    }
  }

  /// Where the index of a delta lies while its entries are taken out.
  private static func savedIndex(beside file: DescriptorFile) -> String { "\(file.name).index" }

  /// A delta's file in the descriptor's folder, whatever way leads there by its name.
  private static func base(
    of shot: Descriptor.Shot, beside file: DescriptorFile
  ) throws(DeviceError) -> DeltaSource {
    let name = shot.file.split(separator: "/").last.map(String.init) ?? shot.file
    let image = try converting { () throws(IOError) in
      try file.folder.open(name, writable: false)
    }
    return DeltaSource(file: image, folder: file.folder, name: name)
  }

  /// Makes a snapshot whole again whose delta was to become the top.
  static func undoFlip(
    _ intent: ChainIntent, _ descriptor: inout Descriptor, _ file: DescriptorFile
  ) throws(DeviceError) {
    let saved = savedIndex(beside: file)
    // Without it nothing was done, or nobody had a use for the snapshot any more.
    guard file.folder.contains(saved), let guid = GUID(intent.snapshot),
      let shot = descriptor.shot(guid)
    else { return }
    guard try SavedIndex(saved, in: file.folder).putBack(into: base(of: shot, beside: file)),
      shot.mark == .temporary
    else { return }
    var whole = descriptor
    do throws(DescriptorError) { try whole.mark(guid, as: nil) } catch {
      throw DeviceError(error, path: file.path)
    }
    try file.replace(with: whole)
    descriptor = whole
  }
}
