#define _GNU_SOURCE
#include "clinux_tracking.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct uffd_range {
  uint64_t start, length;
};
struct uffd_api {
  uint64_t api, features, ioctls;
};
struct uffd_register {
  struct uffd_range range;
  uint64_t mode, ioctls;
};
struct uffd_writeprotect {
  struct uffd_range range;
  uint64_t mode;
};

struct uffd_copy {
  uint64_t target, source, length, mode;
  int64_t copied;
};
struct uffd_zeropage {
  struct uffd_range range;
  uint64_t mode;
  int64_t zeroed;
};
struct uffd_message {
  uint8_t event, reserved[7];
  uint64_t arguments[3];
};

// The sizes are part of the ioctl numbers: a wrong one would be another call.
_Static_assert(sizeof(struct clinux_page_region) == 24, "struct page_region");
_Static_assert(sizeof(struct clinux_scan) == 96, "struct pm_scan_arg");
_Static_assert(sizeof(struct uffd_api) == 24, "struct uffdio_api");
_Static_assert(sizeof(struct uffd_register) == 32, "struct uffdio_register");
_Static_assert(sizeof(struct uffd_writeprotect) == 24, "struct uffdio_writeprotect");

_Static_assert(sizeof(struct uffd_copy) == 40, "struct uffdio_copy");
_Static_assert(sizeof(struct uffd_zeropage) == 32, "struct uffdio_zeropage");
_Static_assert(sizeof(struct uffd_message) == 32, "struct uffd_msg");

#define PAGEMAP_SCAN_ _IOWR('f', 16, struct clinux_scan)
#define UFFD_API_VERSION 0xAA
#define UFFDIO_API_ _IOWR(0xAA, 0x3F, struct uffd_api)
#define UFFDIO_REGISTER_ _IOWR(0xAA, 0x00, struct uffd_register)
#define UFFDIO_UNREGISTER_ _IOR(0xAA, 0x01, struct uffd_range)
#define UFFDIO_WRITEPROTECT_ _IOWR(0xAA, 0x06, struct uffd_writeprotect)
#define UFFDIO_WAKE_ _IOR(0xAA, 0x02, struct uffd_range)
#define UFFDIO_COPY_ _IOWR(0xAA, 0x03, struct uffd_copy)
#define UFFDIO_ZEROPAGE_ _IOWR(0xAA, 0x04, struct uffd_zeropage)
#define REGISTER_MODE_WP 2
#define EVENT_PAGEFAULT 0x12
#define EVENT_FORK 0x13
#define EVENT_REMAP 0x14
#define EVENT_REMOVE 0x15
#define EVENT_UNMAP 0x16

static int checked_ioctl(int fd, unsigned long request, void *argument) {
  int result = ioctl(fd, request, argument);
  return result < 0 ? -errno : result;
}

long clinux_pagemap_scan(int pagemap, struct clinux_scan *scan) {
  return checked_ioctl(pagemap, PAGEMAP_SCAN_, scan);
}

int clinux_userfaultfd(int flags) {
  long fd = syscall(SYS_userfaultfd, flags);
  return fd < 0 ? -errno : (int)fd;
}

int clinux_uffd_api(int uffd, uint64_t *features) {
  struct uffd_api api = {.api = UFFD_API_VERSION, .features = *features};
  int result = checked_ioctl(uffd, UFFDIO_API_, &api);
  *features = api.features;
  return result;
}

int clinux_uffd_register(int uffd, uint64_t start, uint64_t byte_count) {
  struct uffd_register argument = {.range = {start, byte_count}, .mode = REGISTER_MODE_WP};
  return checked_ioctl(uffd, UFFDIO_REGISTER_, &argument);
}

int clinux_uffd_unregister(int uffd, uint64_t start, uint64_t byte_count) {
  struct uffd_range argument = {start, byte_count};
  return checked_ioctl(uffd, UFFDIO_UNREGISTER_, &argument);
}

int clinux_uffd_clear_protection(int uffd, uint64_t start, uint64_t byte_count) {
  struct uffd_writeprotect argument = {.range = {start, byte_count}, .mode = 0};
  return checked_ioctl(uffd, UFFDIO_WRITEPROTECT_, &argument);
}

long clinux_uffd_copy(int uffd, uint64_t target, const void *source, uint64_t byte_count) {
  struct uffd_copy copy = {
      .target = target, .source = (uint64_t)(uintptr_t)source, .length = byte_count};
  if (ioctl(uffd, UFFDIO_COPY_, &copy) == 0) return (long)byte_count;
  int error = errno;
  return copy.copied > 0 ? (long)copy.copied : -error;
}

int clinux_uffd_zero(int uffd, uint64_t target, uint64_t byte_count) {
  struct uffd_zeropage zero = {.range = {target, byte_count}};
  return checked_ioctl(uffd, UFFDIO_ZEROPAGE_, &zero);
}

int clinux_uffd_wake(int uffd, uint64_t start, uint64_t byte_count) {
  struct uffd_range argument = {start, byte_count};
  return checked_ioctl(uffd, UFFDIO_WAKE_, &argument);
}

int clinux_uffd_next(int uffd, struct clinux_uffd_message *message) {
  struct uffd_message raw;
  ssize_t count = read(uffd, &raw, sizeof raw);
  if (count < 0) return errno == EAGAIN ? CLINUX_UFFD_NONE : -errno;
  if (count != sizeof raw) return -EIO;
  *message = (struct clinux_uffd_message){raw.arguments[0], raw.arguments[1], raw.arguments[2]};
  switch (raw.event) {
    case EVENT_PAGEFAULT:
      message->first = raw.arguments[1];
      return CLINUX_UFFD_FAULT;
    case EVENT_FORK:
      message->first = (uint32_t)raw.arguments[0];
      return CLINUX_UFFD_FORK;
    case EVENT_REMAP: return CLINUX_UFFD_REMAP;
    case EVENT_REMOVE:
    case EVENT_UNMAP: return CLINUX_UFFD_REMOVE;
    default: return -EPROTO;
  }
}
