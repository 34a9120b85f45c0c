/// A way to break the engine on purpose. Each loses writes: a test that passes all the same is
/// worth nothing.
package enum EngineFault: String, Sendable, CaseIterable {
  /// Protects a range after its copy, not before.
  case copyBeforeProtect
  /// Trusts the written bit of private file mappings, which lose copies without it.
  case trustWrittenAlone
  /// Takes pages for clean that have no registration any more.
  case ignoreLostRegistration
  /// Registers again without clearing the protection from before.
  case keepStaleProtection
  /// Takes what was mapped anew at a known place for what was there.
  case ignoreRemapping
  /// Takes pages that are gone for unchanged.
  case forgetDropped
  /// Takes pieces of memory for unchanged that were so when they were looked at last.
  case trustStillness
  /// Protects pages that wait for the freeze, without storing them.
  case forgetWaiting
  /// Tracks shared memory as if no other mapping or descriptor wrote it.
  case trackShared
  /// Takes what the chain holds of a shared object for unchanged, without a comparison.
  case trustSharedObject
  /// Takes a page from the parent over a hole that was punched since.
  case keepPunchedHole
  /// Keeps the digest of the first version of a page when a later one is stored.
  case keepStaleDigest
  /// Does not go on after a full vector.
  case dropRestAtFullVector
  /// Forgets what the last call of several reported.
  case losePartialVector
}

/// The faults that a dump is to have: at most one, and none outside of debug builds.
package struct EngineFaultPlan: Sendable {
  #if DEBUG
    private let fault: EngineFault?

    package init(_ fault: EngineFault? = nil) { self.fault = fault }

    package var isEmpty: Bool { fault == nil }
    package func has(_ fault: EngineFault) -> Bool { self.fault == fault }
  #else
    package init() {}

    package var isEmpty: Bool { true }
    package func has(_ fault: EngineFault) -> Bool { false }
  #endif
}
