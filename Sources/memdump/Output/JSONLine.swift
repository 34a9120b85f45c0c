internal import FoundationEssentials

/// One JSON object on a line of its own: `schema`, `event`, and what the event says.
struct JSONLine<Body: Encodable> {
  let event: String
  let body: Body

  /// The line, with its end.
  var text: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.nonConformingFloatEncodingStrategy = .convertToString(
      positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
    guard let data = try? encoder.encode(Envelope(event: event, body: body)) else {
      // Every body is made of numbers, strings, arrays and objects.
      preconditionFailure("event \(event) cannot be encoded")
    }
    return String(decoding: data, as: UTF8.self) + "\n"
  }

  private struct Envelope: Encodable {
    let event: String
    let body: Body

    private enum Key: String, CodingKey { case schema, event }

    func encode(to encoder: any Encoder) throws {
      try body.encode(to: encoder)
      var container = encoder.container(keyedBy: Key.self)
      try container.encode(JSONSchema.version, forKey: .schema)
      try container.encode(event, forKey: .event)
    }
  }
}

/// The version of what `--json` prints. Fields and events are only ever added to a version.
enum JSONSchema {
  static let version = 1
}
