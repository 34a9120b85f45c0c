// Makes one file operation of a program fail: LD_PRELOAD=inject.so program.
//
// Counted are the operations on files below a directory, and those that get memory or threads. The
// tests compile this with cc; nothing of the product knows it.
//
//   INJECT_DIRECTORY  absolute path, without links; what lies elsewhere is left alone
//   INJECT_LOG        file that gets a line `OPERATION NUMBER NAME PATH` for each operation
//   INJECT_AT         the number, from 1, of the operation that fails; absent: none
//   INJECT_NAME, INJECT_SUFFIX  or: operations of this name on paths that end so
//   INJECT_ERRNO      what it fails with; absent, for a write: only its first half is written
//   INJECT_ONWARDS    present: all operations of the same name from there on fail, as on a disk that
//                     is full or broken
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum verdict { PASS, FAIL, SHORTEN };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned long count;
static char failing[32];

/// The next function of that name: libc's.
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long number(const char *name) {
  const char *text = getenv(name);
  return text ? atol(text) : 0;
}

static void note(const char *name, const char *path) {
  const char *log = getenv("INJECT_LOG");
  if (!log) return;
  char line[PATH_MAX + 64];
  int length = snprintf(line, sizeof line, "OPERATION %lu %s %s\n", count, name, path);
  // Straight to the kernel: these must not be counted.
  int file = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return;
  syscall(SYS_write, file, line, (size_t)length);
  syscall(SYS_close, file);
}

static bool is_named(const char *name, const char *path) {
  const char *kind = getenv("INJECT_NAME"), *suffix = getenv("INJECT_SUFFIX");
  if (!kind || !suffix || strcmp(kind, name) != 0) return false;
  size_t length = strlen(path), end = strlen(suffix);
  return length >= end && strcmp(path + length - end, suffix) == 0;
}

static enum verdict decide(const char *name, const char *path, bool can_shorten) {
  pthread_mutex_lock(&mutex);
  count++;
  note(name, path);
  long at = number("INJECT_AT");
  bool chosen = (at > 0 && count == (unsigned long)at) || is_named(name, path);
  if (chosen) snprintf(failing, sizeof failing, "%s", name);
  if (getenv("INJECT_ONWARDS") && strcmp(failing, name) == 0) chosen = true;
  pthread_mutex_unlock(&mutex);
  if (!chosen) return PASS;
  if (!getenv("INJECT_ERRNO")) return can_shorten ? SHORTEN : PASS;
  errno = (int)number("INJECT_ERRNO");
  return FAIL;
}

static bool is_below(const char *path) {
  const char *directory = getenv("INJECT_DIRECTORY");
  if (!directory) return false;
  size_t length = strlen(directory);
  return strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static bool path_of(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
  if (length <= 0) return false;
  path[length] = 0;
  return true;
}

static enum verdict on_file(const char *name, int fd, bool can_shorten) {
  int saved = errno;
  char path[PATH_MAX];
  bool ours = path_of(fd, path) && is_below(path);
  errno = saved;
  return ours ? decide(name, path, can_shorten) : PASS;
}

static enum verdict on_name(const char *name, int directory, const char *file) {
  int saved = errno;
  char path[2 * PATH_MAX + 2];
  bool ours;
  if (file[0] == '/' || directory == AT_FDCWD) {
    ours = is_below(file);
    snprintf(path, sizeof path, "%s", file);
  } else {
    ours = path_of(directory, path) && is_below(path);
    size_t length = strlen(path);
    if (ours) snprintf(path + length, sizeof path - length, "/%s", file);
    // The directory itself, made in its parent.
    if (!ours && length) {
      snprintf(path + length, sizeof path - length, "/%s", file);
      ours = is_below(path);
    }
  }
  errno = saved;
  return ours ? decide(name, path, false) : PASS;
}

int openat(int directory, const char *path, int flags, ...) {
  mode_t mode = 0;
  if (flags & (O_CREAT | O_TMPFILE)) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
  }
  if (on_name(flags & O_CREAT ? "create" : "open", directory, path) == FAIL) return -1;
  return NEXT(openat)(directory, path, flags, mode);
}

ssize_t write(int fd, const void *bytes, size_t size) {
  switch (on_file("write", fd, size > 1)) {
    case FAIL: return -1;
    case SHORTEN: return NEXT(write)(fd, bytes, size / 2);
    default: return NEXT(write)(fd, bytes, size);
  }
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
  switch (on_file("pwrite", fd, size > 1)) {
    case FAIL: return -1;
    case SHORTEN: return NEXT(pwrite)(fd, bytes, size / 2, offset);
    default: return NEXT(pwrite)(fd, bytes, size, offset);
  }
}

ssize_t pread(int fd, void *bytes, size_t size, off_t offset) {
  switch (on_file("pread", fd, size > 1)) {
    case FAIL: return -1;
    case SHORTEN: return NEXT(pread)(fd, bytes, size / 2, offset);
    default: return NEXT(pread)(fd, bytes, size, offset);
  }
}

int fsync(int fd) { return on_file("fsync", fd, false) == FAIL ? -1 : NEXT(fsync)(fd); }

int sync_file_range(int fd, off_t offset, off_t size, unsigned flags) {
  if (on_file("sync_file_range", fd, false) == FAIL) return -1;
  return NEXT(sync_file_range)(fd, offset, size, flags);
}

int ftruncate(int fd, off_t size) {
  return on_file("ftruncate", fd, false) == FAIL ? -1 : NEXT(ftruncate)(fd, size);
}

int fstatvfs(int fd, struct statvfs *out) {
  return on_file("statvfs", fd, false) == FAIL ? -1 : NEXT(fstatvfs)(fd, out);
}

int fstat(int fd, struct stat *out) {
  return on_file("fstat", fd, false) == FAIL ? -1 : NEXT(fstat)(fd, out);
}

int mkdirat(int directory, const char *path, mode_t mode) {
  if (on_name("mkdir", directory, path) == FAIL) return -1;
  return NEXT(mkdirat)(directory, path, mode);
}

int symlinkat(const char *target, int directory, const char *path) {
  if (on_name("symlink", directory, path) == FAIL) return -1;
  return NEXT(symlinkat)(target, directory, path);
}

ssize_t readlinkat(int directory, const char *path, char *out, size_t size) {
  if (on_name("readlink", directory, path) == FAIL) return -1;
  return NEXT(readlinkat)(directory, path, out, size);
}

int unlinkat(int directory, const char *path, int flags) {
  if (on_name(flags & AT_REMOVEDIR ? "rmdir" : "unlink", directory, path) == FAIL) return -1;
  return NEXT(unlinkat)(directory, path, flags);
}

// Anonymous memory of the program's own wish; libc's allocator does not come by here.
void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
  if (fd == -1 && getenv("INJECT_DIRECTORY")) {
    char subject[32];
    snprintf(subject, sizeof subject, "%zu", size);
    if (decide("mmap", subject, false) == FAIL) return MAP_FAILED;
  }
  return NEXT(mmap)(address, size, protection, flags, fd, offset);
}

int pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *argument) {
  if (getenv("INJECT_DIRECTORY") && decide("pthread_create", "-", false) == FAIL) return errno;
  return NEXT(pthread_create)(out, attributes, start, argument);
}

// renameat2 and getdents64 have no function of their own in every libc.
long syscall(long which, ...) {
  static long (*next)(long, ...);
  if (!next) next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  long a[6];
  va_list arguments;
  va_start(arguments, which);
  for (int i = 0; i < 6; i++) a[i] = va_arg(arguments, long);
  va_end(arguments);
  enum verdict verdict = PASS;
  if (which == SYS_renameat2) verdict = on_name("rename", (int)a[0], (const char *)a[1]);
  if (which == SYS_getdents64) verdict = on_file("getdents", (int)a[0], false);
  return verdict == FAIL ? -1 : next(which, a[0], a[1], a[2], a[3], a[4], a[5]);
}
