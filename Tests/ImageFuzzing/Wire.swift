/// Writes images byte by byte, as a stranger would: good ones and bad ones.
package enum Wire {
  package static func varint(_ value: UInt64) -> [UInt8] {
    var bytes: [UInt8] = []
    var rest = value
    while rest > 0x7f {
      bytes.append(UInt8(rest & 0x7f) | 0x80)
      rest >>= 7
    }
    return bytes + [UInt8(rest)]
  }

  package static func field(_ number: UInt64, _ value: UInt64) -> [UInt8] {
    varint(number << 3) + varint(value)
  }

  package static func field(_ number: UInt64, _ bytes: [UInt8]) -> [UInt8] {
    varint(number << 3 | 2) + varint(UInt64(bytes.count)) + bytes
  }

  package static func word(_ value: UInt32) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }

  package static func image(_ magics: [UInt32], _ records: [[UInt8]]) -> [UInt8] {
    magics.flatMap { word($0) } + records.flatMap { word(UInt32($0.count)) + $0 }
  }

  package static func pagemap(_ entries: [[UInt8]], pagesID: UInt64 = 1) -> [UInt8] {
    image([0x5456_4319, 0x5608_4025], [field(1, pagesID)] + entries)
  }

  package static func entry(_ start: UInt64, _ pages: UInt64, flags: UInt64, _ more: [UInt8] = [])
    -> [UInt8]
  {
    field(1, start) + field(2, 0) + field(4, flags) + field(5, pages) + more
  }

  package static func blocks(_ sizes: [UInt64], total: UInt64? = nil, pagesPerBlock: UInt64 = 1)
    -> [UInt8]
  {
    field(
      6,
      field(1, sizes.flatMap { varint($0) }) + field(2, total ?? sizes.reduce(0, &+))
        + field(3, pagesPerBlock))
  }

  package static func inventory(version: UInt64, compress: UInt64? = nil) -> [UInt8] {
    image(
      [0x5831_3116],
      [field(1, version) + field(2, 1) + (compress.map { field(15, $0) } ?? [])])
  }

  package static func mm(_ areas: [(start: UInt64, end: UInt64)]) -> [UInt8] {
    let scalars = (1...12).flatMap { field(UInt64($0), 0) }
    let vmas = areas.flatMap { area in
      field(
        14,
        field(1, area.start) + field(2, area.end) + (3...8).flatMap { field(UInt64($0), 0) })
    }
    return image([0x5456_4319, 0x5749_2820], [scalars + vmas])
  }
}
