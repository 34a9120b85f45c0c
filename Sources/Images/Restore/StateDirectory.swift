package import Kernel

/// Where CRIU's images grow: `criu.partial` in a session's directory. It is removed with this value,
/// unless `StateImages` took it.
///
/// It is there before the newest round is, so that a CRIU can be started before the freeze.
package struct StateDirectory: ~Copyable {
  private let partial: PartialDirectory

  /// Creates the directory (mode 0700) in the session at `path`.
  package init(_ path: String) throws(ImageError) {
    let session = try onFile(path) { () throws(KernelError) in
      try Directory.open(path, followSymlink: true)
    }
    partial = try PartialDirectory(StateImages.directoryName, in: session)
  }

  /// The open directory.
  package var directory: Directory {
    _read { yield partial.directory }
  }

  consuming func release() -> PartialDirectory { partial }
}
