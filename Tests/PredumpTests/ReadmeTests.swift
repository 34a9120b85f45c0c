import Foundation
import Images
import Testing

@testable import Predump

/// The README's table of treatments is what the code does.
struct ReadmeTests {
  @Test("the README's table names every kind of VMA and its treatment") func treatments() throws {
    let readme = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("README.md")
    let lines = try String(contentsOf: readme, encoding: .utf8).split(separator: "\n")
    let table = lines.drop { !$0.hasPrefix("<!-- treatments") }.prefix {
      $0 != "<!-- /treatments -->"
    }
    let rows = table.filter { $0.hasPrefix("| ") }.dropFirst().map { line in
      line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
    }
    let written = Dictionary(uniqueKeysWithValues: rows.map { ($0[0], $0[1]) })
    #expect(written.count == VMAKind.allCases.count)
    for kind in VMAKind.allCases {
      let treatments = [false, true].map {
        Self.words("\(VMAClassifier.treatment(of: kind, isShared: $0))")
      }
      // Of huge pages, private ones and shared ones.
      let expected =
        treatments[0] == treatments[1]
        ? treatments[0] : "\(treatments[0]); shared: \(treatments[1])"
      #expect(written[Self.words("\(kind)")] == expected, "\(kind)")
    }
  }

  /// `privateFile` -> `private-file`.
  private static func words(_ name: String) -> String {
    let special = ["sysvSharedMemory": "sysv-shm"]
    if let word = special[name] { return word }
    return name.reduce(into: "") { text, letter in
      text += letter.isUppercase ? "-" + letter.lowercased() : String(letter)
    }
  }
}
