internal import CCRIUImages
internal import Kernel

/// Writes a pagemap without blocks. Adjacent runs with the same flags become one entry.
struct PagemapWriter: ~Copyable {
  private var records: RecordWriter
  private var open: PageRange
  private var openFlags: PagemapFlags

  /// Creates the pagemap `name`, whose pages are in `pages-<pagesID>.img`.
  init(_ name: String, in directory: borrowing Directory, pagesID: UInt32) throws(ImageError) {
    var records = try RecordWriter(
      name, in: directory, magics: [ImageFormat.common, ImageFormat.pagemap])
    var head = Criu__PagemapHead()
    criu__pagemap_head__init(&head)
    head.pages_id = pagesID
    try records.append(head)
    self.records = records
    (open, openFlags) = (PageRange(start: 0, end: 0), [])
  }

  /// Appends a run of pages, above all before it.
  mutating func append(_ range: PageRange, flags: PagemapFlags) throws(ImageError) {
    if !open.isEmpty, open.end == range.start, openFlags == flags {
      open = PageRange(start: open.start, end: range.end)
      return
    }
    try close()
    open = range
    openFlags = flags
  }

  /// Writes out what is left.
  mutating func finish() throws(ImageError) {
    try close()
    _ = try records.finish(sync: false)
  }

  private mutating func close() throws(ImageError) {
    if open.isEmpty { return }
    var entry = Criu__PagemapEntry()
    criu__pagemap_entry__init(&entry)
    entry.vaddr = open.start
    entry.has_flags = 1
    entry.flags = openFlags.rawValue
    entry.has_nr_pages = 1
    entry.nr_pages = open.pageCount
    // Plain entries are read by CRIUs before 4.0 too, which know this field only.
    entry.compat_nr_pages = UInt32(exactly: open.pageCount) ?? 0
    try records.append(entry)
  }
}
