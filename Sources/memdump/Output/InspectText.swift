internal import Images
internal import Kernel

/// A chain's contents for people.
struct InspectText {
  /// What to print.
  let lines: [String]

  init(_ contents: borrowing ChainContents, _ style: Style) {
    var body: [String] = []
    if let session = contents.session {
      body.append(
        "\(session.target.command) (pid \(session.target.pid)), dumped by \(session.tool)")
      body.append("outcome: \(session.outcome.name)")
      body.append("")
      if session.members.count > 1 { body += Self.members(session).lines(style) + [""] }
    }
    body += Self.rounds(contents.rounds).lines(style)
    if let top = contents.rounds.last {
      let areas = Self.areas(top.record?.vmas ?? [], top.areas)
      if !areas.isEmpty {
        body += ["", "VMAs of \(top.name):"] + areas.lines(style)
      }
      for member in top.record?.members.dropFirst() ?? [] {
        let name = "\(member.target.command.printable) (\(member.target.pid))"
        body += ["", "VMAs of \(name):"] + Self.areas(member.vmas, []).lines(style)
      }
    }
    lines = body
  }

  private static func rounds(_ rounds: [RoundContents]) -> Table {
    var table = Table([
      ("round", .left), ("kind", .left), ("format", .left), ("stored", .right), ("zero", .right),
      ("from parent", .right), ("bytes", .right), ("ratio", .right), ("time", .right),
      ("frozen", .right),
    ])
    for round in rounds {
      let totals = RoundTotals(round)
      let times = round.record?.statistics
      table.add([
        round.name, round.record?.kind.name ?? "-", round.format,
        Units.count(totals.pagesStored), Units.count(totals.pagesZero),
        Units.count(totals.pagesFromParent), Units.bytes(totals.payloadBytes),
        Units.ratioText(totals.pagesStored &* pageBytes, totals.payloadBytes),
        times.map { Units.duration(microseconds: $0.wallMicroseconds) } ?? "-",
        times.map { Units.duration(microseconds: $0.frozenMicroseconds) } ?? "-",
      ])
    }
    return table
  }

  private static func members(_ session: SessionRecord) -> Table {
    var table = Table([
      ("pid", .right), ("parent", .right), ("command", .left), ("rounds", .left),
    ])
    for member in session.members {
      table.add([
        "\(member.target.pid)", member.parent == 0 ? "-" : "\(member.parent)",
        member.target.command.printable, "\(member.firstRound)-\(member.lastRound)",
      ])
    }
    return table
  }

  private static func areas(_ vmas: [VMARecord], _ areas: [RoundContents.Area]) -> Table {
    var table = Table([
      ("range", .left), ("prot", .left), ("kind", .left), ("treatment", .left),
      ("pages", .right), ("stored", .right), ("from parent", .right), ("path", .left),
    ])
    for vma in vmas {
      table.add([
        "\(hexAddress(vma.range.start))-\(hexAddress(vma.range.end))", vma.protectionText,
        vma.kind.name, vma.treatment.name, Units.count(vma.range.pageCount),
        Units.count(vma.pagesStored), Units.count(vma.pagesFromParent), vma.path.printable,
      ])
    }
    for area in areas {
      table.add([
        "\(hexAddress(area.range.start))-\(hexAddress(area.range.end))", "-",
        "status \(hexAddress(UInt64(area.status)))", "-", Units.count(area.range.pageCount),
        Units.count(area.pagesStored), Units.count(area.pagesFromParent), "",
      ])
    }
    return table
  }
}
