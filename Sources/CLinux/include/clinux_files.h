#ifndef CLINUX_FILES_H
#define CLINUX_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/// What fstat says that memdump asks for.
struct clinux_stat {
  uint64_t device;
  uint64_t inode;
  uint64_t size;
  uint32_t mode;
  uint32_t owner;
};

int clinux_openat(int directory, const char *path, int flags, unsigned mode);
/// openat2(2) that resolves `name` beneath `directory` and through no link, magic or not.
int clinux_open_beneath(int directory, const char *name, int flags, unsigned mode);
int clinux_close(int fd);
long clinux_read(int fd, void *buffer, size_t count);
long clinux_write(int fd, const void *buffer, size_t count);
long clinux_pread(int fd, void *buffer, size_t count, uint64_t offset);
long clinux_pwrite(int fd, const void *buffer, size_t count, uint64_t offset);
int clinux_fstat(int fd, struct clinux_stat *out);
int clinux_fsync(int fd);
/// sync_file_range(SYNC_FILE_RANGE_WRITE).
int clinux_start_writeback(int fd, uint64_t offset, uint64_t byte_count);
int clinux_ftruncate(int fd, uint64_t size);
int clinux_memfd_create(const char *name);
int64_t clinux_lseek(int fd, int64_t offset, int whence);
int clinux_mkdirat(int directory, const char *path, unsigned mode);
int clinux_renameat2(int from_directory, const char *from, int to_directory, const char *to,
                     unsigned flags);
int clinux_unlinkat(int directory, const char *path, int flags);
int clinux_symlinkat(const char *target, int directory, const char *path);
long clinux_readlinkat(int directory, const char *path, char *buffer, size_t count);
/// Free bytes for this user on the file system of `fd`.
int clinux_free_bytes(int fd, uint64_t *out);
/// Fills `buffer` with raw getdents64 records; 0 at the end.
long clinux_getdents(int fd, void *buffer, size_t count);

#endif
