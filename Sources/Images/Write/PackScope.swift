internal import CCRIUImages
internal import CProtobufC
internal import Glibc

/// A generated message: a C structure that starts with `ProtobufCMessage`.
protocol ProtobufMessage {}

extension Criu__InventoryEntry: ProtobufMessage {}
extension Criu__PagemapHead: ProtobufMessage {}
extension Criu__PagemapEntry: ProtobufMessage {}
extension Criu__MmEntry: ProtobufMessage {}
extension Criu__StatsEntry: ProtobufMessage {}
extension Memdump__Record: ProtobufMessage {}

/// Memory for what a message being written points at; it lives as long as this object.
final class PackScope {
  private var allocations: [UnsafeMutableRawPointer] = []

  deinit { for allocation in allocations { allocation.deallocate() } }

  /// A copy of `value`, a plain C value, that a message may point at.
  func place<Value>(_ value: Value) -> UnsafeMutablePointer<Value> {
    let pointer = UnsafeMutablePointer<Value>.allocate(capacity: 1)
    pointer.initialize(to: value)
    allocations.append(UnsafeMutableRawPointer(pointer))
    return pointer
  }

  /// A copy of `values` that a message may point at.
  func place<Value>(_ values: [Value]) -> UnsafeMutablePointer<Value> {
    let pointer = UnsafeMutablePointer<Value>.allocate(capacity: max(values.count, 1))
    pointer.initialize(from: values, count: values.count)
    allocations.append(UnsafeMutableRawPointer(pointer))
    return pointer
  }

  /// A copy of `text`, ended by 0.
  func string(_ text: String) -> UnsafeMutablePointer<CChar> { place(Array(text.utf8CString)) }

  /// A copy of the bytes of `text`.
  func bytes(_ text: String) -> ProtobufCBinaryData {
    let bytes = Array(text.utf8)
    return ProtobufCBinaryData(len: bytes.count, data: place(bytes))
  }
}
