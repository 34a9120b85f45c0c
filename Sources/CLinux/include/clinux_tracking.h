// userfaultfd(2) and ioctl(PAGEMAP_SCAN): the kernel's write tracking. The structures are the
// kernel's (linux/userfaultfd.h, linux/fs.h), written out because distributions ship headers older
// than the calls.
#ifndef CLINUX_TRACKING_H
#define CLINUX_TRACKING_H

#include <stdint.h>

/// struct page_region: pages from start up to end have these categories.
struct clinux_page_region {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};

/// struct pm_scan_arg.
struct clinux_scan {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t vec;
  uint64_t vec_len;
  uint64_t max_pages;
  uint64_t category_inverted;
  uint64_t category_mask;
  uint64_t category_anyof_mask;
  uint64_t return_mask;
};

/// The number of regions filled. `walk_end` says where to go on.
long clinux_pagemap_scan(int pagemap, struct clinux_scan *scan);

int clinux_userfaultfd(int flags);
/// UFFDIO_API. `features`: asked for on entry, offered by the kernel on return. Once a descriptor.
int clinux_uffd_api(int uffd, uint64_t *features);
/// UFFDIO_REGISTER for write protection.
int clinux_uffd_register(int uffd, uint64_t start, uint64_t byte_count);
int clinux_uffd_unregister(int uffd, uint64_t start, uint64_t byte_count);
/// UFFDIO_WRITEPROTECT without the protect bit: every page counts as written again.
int clinux_uffd_clear_protection(int uffd, uint64_t start, uint64_t byte_count);
/// UFFDIO_COPY: fills missing pages from `target` on with whole pages. The bytes filled, up to the
/// first page that cannot be; if that is the first of all, -EEXIST if it is there already, -EAGAIN
/// if the address space is changing.
long clinux_uffd_copy(int uffd, uint64_t target, const void *source, uint64_t byte_count);
/// UFFDIO_ZEROPAGE.
int clinux_uffd_zero(int uffd, uint64_t target, uint64_t byte_count);
/// UFFDIO_WAKE.
int clinux_uffd_wake(int uffd, uint64_t start, uint64_t byte_count);

/// What a userfaultfd tells of its address space.
enum clinux_uffd_event {
  CLINUX_UFFD_NONE,
  /// A thread waits for the page at `first`.
  CLINUX_UFFD_FAULT,
  /// A child has a copy of it, and `first` is the child's userfaultfd.
  CLINUX_UFFD_FORK,
  /// mremap has moved `third` bytes from `first` to `second`.
  CLINUX_UFFD_REMAP,
  /// `first` to `second` is about to be dropped (madvise), or is unmapped.
  CLINUX_UFFD_REMOVE,
};
struct clinux_uffd_message {
  uint64_t first, second, third;
};
/// Takes a message: which event it is.
int clinux_uffd_next(int uffd, struct clinux_uffd_message *message);

#endif
