internal import Tracee
internal import Foundation
internal import Predump
internal import Images
@main enum Main { static func main() {
  let a = CommandLine.arguments
  do {
  switch a[1] {
  case "predump":
    var o = PredumpOptions(pid: Int32(a[2])!, imagesDirectory: a[3])
    if a.count > 4 { o.policy.targetDowntimeNanoseconds = UInt64(a[4])! * 1000 }
    if a.count > 5 { o.leave = .stopped }
    if a.count > 6 { o.compression = .none }
    let s = try Predump.run(o) { print($0) }
    print(s.outcome, s.wallNanoseconds / 1000)
  case "check":
    let r = ChainVerifier.verify(a[2]); print(r.verdict, r.findings)
  case "live": print(try LiveComparison.run(directory: a[2], pid: Int32(a[3])!))
  case "rebuild": print(try ScratchRebuild.run(directory: a[2], comparingWith: nil))
  default: break }
  } catch { print("ERR", error) }
}}
