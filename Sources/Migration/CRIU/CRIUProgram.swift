internal import Kernel
internal import SystemPackage

/// The `criu` of this machine.
public struct CRIUProgram: Sendable {
  /// Its path, or a name that is looked for as a shell does.
  public var path: String

  /// Takes the program at `path`; one that is not absolute begins in the directory of this moment, as
  /// criu is started in others.
  public init(_ path: String = "criu") {
    self.path = path.contains("/") ? WorkingDirectory.absolute(path) : path
  }

  /// Whether it reads images with LZ4 blocks. CRIU 4.3 has them only if built with liblz4, and an
  /// older one does not know the question: both answer with failure.
  func readsCompressedImages() throws(MigrationError) -> Bool {
    let check = try start(["check", "--feature", "compress"], directory: nil, output: .discarded)
    return try Self.wait(check) == .exited(0)
  }

  /// Whether it can be run at all.
  ///
  /// - Throws: `.noCRIU`, or `.criu` if it is no criu.
  func checkPresent() throws(MigrationError) {
    let end = try Self.wait(try start(["--version"], directory: nil, output: .discarded))
    guard end == .exited(0) else {
      throw .peer("\(path) --version \(end): it is no criu")
    }
  }

  /// Starts it; ^C on our terminal passes it by.
  ///
  /// - Parameter input: becomes its standard input; without one, that is empty.
  func start(
    _ arguments: [String], directory: CInt?, input: CInt? = nil, output: ChildProcess.Output
  ) throws(MigrationError) -> ChildProcess {
    do throws(KernelError) {
      return try ChildProcess(
        path, arguments, directory: directory, input: input, output: output, hasOwnGroup: true)
    } catch {
      if [.noSuchFileOrDirectory, .permissionDenied].contains(error.errno) {
        throw .noCRIU(path: path, error)
      }
      throw .kernel(error)
    }
  }

  /// Waits for a program's end.
  static func wait(_ child: consuming ChildProcess) throws(MigrationError) -> ChildProcess.End {
    do throws(KernelError) { return try child.wait() } catch { throw .kernel(error) }
  }

  /// What a log says of a failure: its last errors, or, without any, its last lines.
  static func complaints(in directory: borrowing Directory, log: String) -> [String] {
    let limit = 8
    guard let file = try? directory.openFile(log),
      let bytes = try? readToEnd(file, path: directory.join(log))
    else { return ["(there is no log)"] }
    let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init)
    let errors = lines.filter { $0.contains("Error") }
    return Array((errors.isEmpty ? lines : errors).suffix(limit))
  }
}

extension ChildProcess.End: CustomStringConvertible {
  package var description: String {
    switch self {
    case .exited(let status): "ended with status \(status)"
    case .killed(let signal): "was ended by signal \(signal)"
    }
  }
}
