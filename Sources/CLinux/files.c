#define _GNU_SOURCE
#include "clinux_files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RESULT(call)              \
  do {                            \
    __auto_type result_ = (call); \
    return result_ < 0 ? -errno : result_; \
  } while (0)

int clinux_openat(int directory, const char *path, int flags, unsigned mode) {
  RESULT(openat(directory, path, flags, mode));
}
int clinux_open_beneath(int directory, const char *name, int flags, unsigned mode) {
  struct open_how how = {.flags = (uint64_t)flags,
                         .mode = mode,
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
  RESULT((int)syscall(SYS_openat2, directory, name, &how, sizeof how));
}
int clinux_close(int fd) { RESULT(close(fd)); }
long clinux_read(int fd, void *buffer, size_t count) { RESULT(read(fd, buffer, count)); }
long clinux_write(int fd, const void *buffer, size_t count) { RESULT(write(fd, buffer, count)); }
long clinux_pread(int fd, void *buffer, size_t count, uint64_t offset) {
  RESULT(pread(fd, buffer, count, (off_t)offset));
}
long clinux_pwrite(int fd, const void *buffer, size_t count, uint64_t offset) {
  RESULT(pwrite(fd, buffer, count, (off_t)offset));
}
int clinux_fstat(int fd, struct clinux_stat *out) {
  struct stat status;
  if (fstat(fd, &status) < 0) return -errno;
  *out = (struct clinux_stat){.device = status.st_dev,
                              .inode = status.st_ino,
                              .size = (uint64_t)status.st_size,
                              .mode = status.st_mode,
                              .owner = status.st_uid};
  return 0;
}
int clinux_fsync(int fd) { RESULT(fsync(fd)); }
int clinux_start_writeback(int fd, uint64_t offset, uint64_t byte_count) {
  RESULT(sync_file_range(fd, (off_t)offset, (off_t)byte_count, SYNC_FILE_RANGE_WRITE));
}
int clinux_ftruncate(int fd, uint64_t size) { RESULT(ftruncate(fd, (off_t)size)); }
int clinux_memfd_create(const char *name) { RESULT(memfd_create(name, MFD_CLOEXEC)); }
int64_t clinux_lseek(int fd, int64_t offset, int whence) { RESULT(lseek(fd, offset, whence)); }
int clinux_mkdirat(int directory, const char *path, unsigned mode) {
  RESULT(mkdirat(directory, path, mode));
}
int clinux_renameat2(int from_directory, const char *from, int to_directory, const char *to,
                     unsigned flags) {
  RESULT((int)syscall(SYS_renameat2, from_directory, from, to_directory, to, flags));
}
int clinux_unlinkat(int directory, const char *path, int flags) {
  RESULT(unlinkat(directory, path, flags));
}
int clinux_symlinkat(const char *target, int directory, const char *path) {
  RESULT(symlinkat(target, directory, path));
}
long clinux_readlinkat(int directory, const char *path, char *buffer, size_t count) {
  RESULT(readlinkat(directory, path, buffer, count));
}
int clinux_free_bytes(int fd, uint64_t *out) {
  struct statvfs status;
  if (fstatvfs(fd, &status) < 0) return -errno;
  *out = (uint64_t)status.f_bavail * status.f_frsize;
  return 0;
}
long clinux_getdents(int fd, void *buffer, size_t count) {
  RESULT(syscall(SYS_getdents64, fd, buffer, count));
}
