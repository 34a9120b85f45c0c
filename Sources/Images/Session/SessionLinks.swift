package import Kernel

/// The links in a session's directory.
package enum SessionLinks {
  /// The link to the newest complete round.
  package static let latest = "latest"

  /// Lets `latest` point at the round `name`, in one step.
  package static func pointLatest(to name: String, in directory: borrowing Directory)
    throws(ImageError)
  {
    let new = latest + ".new"
    do throws(KernelError) {
      try? directory.removeFile(new)
      try directory.createSymlink(new, to: name)
      try directory.renameReplacing(new, to: latest)
    } catch { throw ImageError(error, file: directory.join(latest)) }
  }
}
