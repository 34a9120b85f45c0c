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
/// Takes a message: 0 there is none, 1 a thread waits for the page at `address`, 2 something else.
int clinux_uffd_next(int uffd, uint64_t *address);

#endif
