package import Kernel

extension StateImages {
  /// Sends the images that CRIU wrote into `directory`, but for the pages of processes whose memory
  /// the rounds have.
  ///
  /// - Returns: their bytes.
  package static func send(
    from directory: borrowing Directory, over link: MoveLink, withoutPagesOf pids: Set<Int32>
  ) throws(ImageError) -> UInt64 {
    let names = try onFile(directory.path) { () throws(KernelError) in try directory.names() }
    var omitted: Set<String> = []
    for name in names {
      guard let pid = process(ofPagemap: name), pids.contains(pid) else { continue }
      omitted.insert(ImageFormat.pagesName(try PagemapReader(name, in: directory).pagesID))
    }
    var bytes: UInt64 = 0
    for name in names where IncomingState.isImageName(name) && !omitted.contains(name) {
      try link.putFile(name, from: directory)
      bytes += try onFile(directory.join(name)) { () throws(KernelError) in
        try File(directory.openFile(name), path: name).byteCount()
      }
    }
    return bytes
  }
}
