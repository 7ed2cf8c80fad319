/// Something that has happened to a device, an export or something else of the service's.
package struct Event: Sendable, Equatable {
  /// Its place in the ring; nil for one that is not kept.
  package var revision: UInt64?
  /// Seconds since 1970.
  package var at: Double
  /// As `device.created`: what it happened to, and what happened.
  package var type: String
  /// The id or name of what it happened to.
  package var subject: String
  /// The device that it belongs to, if any.
  package var device: String?
  /// Who had it happen, as ``Requester`` has it; nil for the service itself.
  package var actor: String?

  /// What it happened to: `device`.
  package var kind: String { String(type.prefix { $0 != "." }) }
}

/// Which events somebody wants to hear of.
package struct EventFilter: Sendable, Equatable {
  /// A type, or all of a kind: `export.deleted`, `job.*`.
  package struct Pattern: Sendable, Equatable {
    package let text: String

    /// - Returns: nil for what is neither.
    package init?(_ text: String) {
      let words = text.split(separator: ".", omittingEmptySubsequences: false)
      guard words.count == 2, Pattern.isWord(words[0]), words[1] == "*" || Pattern.isWord(words[1])
      else { return nil }
      self.text = text
    }

    private static func isWord(_ text: Substring) -> Bool {
      !text.isEmpty && text.utf8.allSatisfy { (0x61...0x7A).contains($0) || $0 == 0x5F }
    }

    func matches(_ type: String) -> Bool {
      text.hasSuffix("*") ? type.hasPrefix(text.dropLast()) : type == text
    }
  }

  /// Any of these; empty for all.
  package var types: [Pattern] = []
  package var device: String?
  /// Only what belongs to one of these; nil for all, and what belongs to none.
  package var devices: DeviceGlobs?

  package init(types: [Pattern] = [], device: String? = nil, devices: DeviceGlobs? = nil) {
    self.types = types
    self.device = device
    self.devices = devices
  }

  package func matches(_ event: Event) -> Bool {
    (types.isEmpty || types.contains { $0.matches(event.type) })
      && (device == nil || device == event.device)
      && (devices.map { event.device.map($0.contains) ?? false } ?? true)
  }
}
