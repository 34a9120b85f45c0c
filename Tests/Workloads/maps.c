// Mode `maps`: one region of every kind that a Linux process can have, and an arena whose layout
// changes on command (mutate.c). What this machine does not offer is printed as absent.
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "mutate.h"

// Not in the headers of every distribution that memdump builds on.
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

#define REGION_PAGES 32u
#define REGION_BYTES (REGION_PAGES * PAGE)

static const struct options *options;

static void report(const char *name, const void *start, size_t bytes) {
  say("region %s 0x%lx 0x%lx", name, (uintptr_t)start, (uintptr_t)start + bytes);
}

static void absent(const char *name) { say("absent %s %s", name, strerror(errno)); }

static bool wanted(const char *name) {
  if (!option_lists(options, "without", name)) return true;
  say("absent %s not wanted", name);
  return false;
}

static void *map(size_t bytes, int protection, int flags, int fd) {
  void *start = mmap(NULL, bytes, protection, flags, fd, 0);
  return start == MAP_FAILED ? NULL : start;
}

/// A filled private region with guard gaps, so that it does not merge with its neighbours.
static char *private_region(uint64_t key) {
  char *start = map(REGION_BYTES + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  if (!start) die("mmap");
  mprotect(start + PAGE, REGION_BYTES, PROT_READ | PROT_WRITE);
  fill(start + PAGE, REGION_BYTES, key);
  return start + PAGE;
}

/// A file of the size of a region, filled. Left for the test to remove if it gave a directory.
static int region_file(const char *directory, const char *name, uint64_t key) {
  char path[4096];
  const char *given = option_text(options, "dir", NULL);
  bool keep = given && strcmp(directory, given) == 0;
  snprintf(path, sizeof path, "%s/workload-%s-XXXXXX", directory, name);
  int fd = mkostemp(path, O_CLOEXEC);
  if (fd < 0) return -1;
  if (!keep) unlink(path);
  char *content = map_private(REGION_BYTES);
  fill(content, REGION_BYTES, key);
  ssize_t n = write(fd, content, REGION_BYTES);
  munmap(content, REGION_BYTES);
  if (n == (ssize_t)REGION_BYTES) return fd;
  close(fd);
  errno = ENOSPC;
  return -1;
}

static const char *disk(void) { return option_text(options, "dir", "/var/tmp"); }

// MARK: Private memory

static void make_private(void) {
  if (wanted("anon")) report("anon", private_region(1), REGION_BYTES);
  if (wanted("read_only")) {
    char *start = private_region(2);
    mprotect(start, REGION_BYTES, PROT_READ);
    report("read_only", start, REGION_BYTES);
  }
  if (wanted("prot_none")) {
    char *start = private_region(3);
    mprotect(start, REGION_BYTES, PROT_NONE);
    report("prot_none", start, REGION_BYTES);
  }
  if (wanted("zero_page")) {
    char *start = map(REGION_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (!start) die("mmap");
    for (size_t i = 0; i < REGION_BYTES; i += PAGE) (void)*(volatile char *)(start + i);
    report("zero_page", start, REGION_BYTES);
  }
  if (wanted("untouched")) report("untouched", map_private(REGION_BYTES), REGION_BYTES);
  if (wanted("grows_down")) {
    char *start = map(REGION_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1);
    if (start) {
      fill(start, REGION_BYTES, 4);
      report("grows_down", start, REGION_BYTES);
    } else {
      absent("grows_down");
    }
  }
}

static void make_sparse(void) {
  if (!wanted("sparse")) return;
  size_t bytes = 64ull << 30;
  char *start = map(bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
  if (!start) return absent("sparse");
  // First, last and one in the midst; written, then as unreachable as the rest.
  size_t offsets[] = {0, (bytes / 3) / PAGE * PAGE, bytes - PAGE};
  for (int i = 0; i < 3; i++) {
    mprotect(start + offsets[i], PAGE, PROT_READ | PROT_WRITE);
    fill(start + offsets[i], PAGE, 5 + (uint64_t)i);
    mprotect(start + offsets[i], PAGE, PROT_NONE);
  }
  report("sparse", start, bytes);
}

static void make_huge(void) {
  if (wanted("thp")) {
    size_t bytes = 2 * HUGE_PAGE;
    char *start = map_private_huge_aligned(bytes);
    if (madvise(start, bytes, MADV_HUGEPAGE)) {
      absent("thp");
    } else {
      fill(start, bytes, 8);
      report("thp", start, bytes);
    }
  }
  if (!wanted("hugetlb")) return;
  // Only pages that the machine already holds ready; the pool is not ours to grow.
  char line[128];
  unsigned long free_pages = 0;
  FILE *file = fopen("/proc/meminfo", "re");
  while (file && fgets(line, sizeof line, file)) sscanf(line, "HugePages_Free: %lu", &free_pages);
  if (file) fclose(file);
  char *start = NULL;
  errno = ENOMEM;
  if (free_pages)
    start = map(HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
  if (!start) return absent("hugetlb");
  fill(start, HUGE_PAGE, 9);
  report("hugetlb", start, HUGE_PAGE);
}

/// Half of the region's pages (the odd ones) get the advice.
static bool advise_odd_pages(char *start, int advice) {
  for (size_t i = 1; i < REGION_PAGES; i += 2)
    if (madvise(start + i * PAGE, PAGE, advice)) return false;
  return true;
}

static void make_advised(void) {
  static const struct {
    const char *name;
    int advice;
    bool whole;
  } advised[] = {
      {"dontneed", MADV_DONTNEED, false},       {"free", MADV_FREE, false},
      {"guard", MADV_GUARD_INSTALL, false},     {"dontdump", MADV_DONTDUMP, true},
      {"wipe_on_fork", MADV_WIPEONFORK, true},  {"dontfork", MADV_DONTFORK, true},
      {"mergeable", MADV_MERGEABLE, true},
  };
  for (size_t i = 0; i < sizeof advised / sizeof *advised; i++) {
    const char *name = advised[i].name;
    if (!wanted(name)) continue;
    char *start = private_region(20 + i);
    bool done = advised[i].whole ? madvise(start, REGION_BYTES, advised[i].advice) == 0
                                 : advise_odd_pages(start, advised[i].advice);
    if (done)
      report(name, start, REGION_BYTES);
    else
      absent(name);
  }
  if (wanted("locked")) {
    char *start = private_region(30);
    if (mlock(start, REGION_BYTES) == 0)
      report("locked", start, REGION_BYTES);
    else
      absent("locked");
  }
  if (wanted("sealed")) {
    char *start = private_region(31);
    if (syscall(SYS_mseal, start, (size_t)REGION_BYTES, 0ul) == 0)
      report("sealed", start, REGION_BYTES);
    else
      absent("sealed");
  }
  if (wanted("droppable")) {
    char *start = map(REGION_BYTES, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1);
    if (start) {
      fill(start, REGION_BYTES, 32);
      report("droppable", start, REGION_BYTES);
    } else {
      absent("droppable");
    }
  }
}

// MARK: Files and shared memory

static void map_file(const char *name, int fd, int flags, int copied_pages) {
  char *start = fd < 0 ? NULL : map(REGION_BYTES, PROT_READ | PROT_WRITE, flags, fd);
  int error = errno;
  if (fd >= 0) close(fd);
  errno = error;
  if (!start) return absent(name);
  // Clean pages are touched, so that they are in the page table; every other one is then written.
  for (size_t i = 0; i < REGION_BYTES; i += PAGE) (void)*(volatile char *)(start + i);
  for (int i = 0; i < copied_pages; i++)
    fill(start + (size_t)(2 * i + 1) * PAGE, PAGE, 40 + (uint64_t)i);
  report(name, start, REGION_BYTES);
}

static void make_files(void) {
  if (wanted("file_clean"))
    map_file("file_clean", region_file(disk(), "clean", 41), MAP_PRIVATE, 0);
  if (wanted("file_copied"))
    map_file("file_copied", region_file(disk(), "copied", 42), MAP_PRIVATE, 8);
  if (wanted("file_shared"))
    map_file("file_shared", region_file(disk(), "shared", 43), MAP_SHARED, 8);
  if (wanted("tmpfs_shared"))
    map_file("tmpfs_shared", region_file("/dev/shm", "shared", 44), MAP_SHARED, 8);
  if (wanted("tmpfs_private"))
    map_file("tmpfs_private", region_file("/dev/shm", "private", 45), MAP_PRIVATE, 8);
  if (wanted("dev_zero"))
    map_file("dev_zero", open("/dev/zero", O_RDWR | O_CLOEXEC), MAP_PRIVATE, 8);
}

static void make_shared(void) {
  if (wanted("shared_anon")) {
    char *start = map(REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
    if (!start) die("mmap of shared memory");
    // A hole at its end: no page of the object.
    fill(start, REGION_BYTES / 2, 50);
    report("shared_anon", start, REGION_BYTES);
  }
  if (wanted("memfd")) {
    int fd = memfd_create("workload", MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, REGION_BYTES)) die("ftruncate");
    map_file("memfd", fd, MAP_SHARED, 8);
  }
  if (wanted("sysv")) {
    int id = shmget(IPC_PRIVATE, REGION_BYTES, IPC_CREAT | 0600);
    char *start = id < 0 ? (char *)-1 : shmat(id, NULL, 0);
    int error = errno;
    // Removed at once: it lives while it is attached, and is never left behind.
    if (id >= 0) shmctl(id, IPC_RMID, NULL);
    errno = error;
    if (start == (char *)-1) {
      absent("sysv");
    } else {
      fill(start, REGION_BYTES, 51);
      report("sysv", start, REGION_BYTES);
    }
  }
  if (wanted("secret")) {
    int fd = (int)syscall(SYS_memfd_secret, 0u);
    char *start = NULL;
    if (fd >= 0 && ftruncate(fd, REGION_BYTES) == 0)
      start = map(REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    if (start) {
      fill(start, REGION_BYTES, 52);
      report("secret", start, REGION_BYTES);
    } else {
      absent("secret");
    }
  }
}

// MARK: Memory that the kernel writes

static void register_buffer(int ring) {
  if (!option_number(options, "uring_buffers", 0)) return;
  char *start = private_region(60);
  struct iovec buffer = {start, REGION_BYTES};
  if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer, 1) == 0)
    report("uring_buffer", start, REGION_BYTES);
  else
    absent("uring_buffer");
}

static void make_kernel_rings(void) {
  if (wanted("io_uring")) {
    struct io_uring_params params = {0};
    int ring = (int)syscall(SYS_io_uring_setup, 64, &params);
    size_t bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    size_t completions = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    bytes = ((bytes > completions ? bytes : completions) + PAGE - 1) / PAGE * PAGE;
    char *start = NULL, *entries = NULL;
    if (ring >= 0) {
      start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
                   IORING_OFF_SQ_RING);
      entries = mmap(NULL, params.sq_entries * sizeof(struct io_uring_sqe),
                     PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    }
    if (ring < 0 || start == MAP_FAILED || entries == MAP_FAILED) {
      absent("io_uring");
    } else {
      report("io_uring", start, bytes);
      report("io_uring_entries", entries, params.sq_entries * sizeof(struct io_uring_sqe));
      register_buffer(ring);
    }
  }
  if (!wanted("aio")) return;
  aio_context_t context = 0;
  uintptr_t start, end;
  if (syscall(SYS_io_setup, 32, &context)) return absent("aio");
  // The context is the address of its ring.
  if (mapping_of((void *)context, &start, &end)) report("aio", (void *)start, end - start);
}

// MARK: Stack and heap

__attribute__((noinline)) static uint64_t deepen(int frames) {
  volatile uint64_t frame[512];
  for (int i = 0; i < 512; i++) frame[i] = mix((uint64_t)(frames * 512 + i));
  uint64_t below = frames ? deepen(frames - 1) : 0;
  return below + frame[frames % 512];  // not a tail call
}

static void make_stack_and_heap(void) {
  uintptr_t start, end;
  int here = 0;
  deepen(512);  // 2 MiB that stay populated below the stack pointer
  if (mapping_of(&here, &start, &end)) report("stack", (void *)start, end - start);
  char *heap = sbrk(REGION_BYTES + PAGE);
  if (heap == (char *)-1) return absent("heap");
  heap = (char *)(((uintptr_t)heap + PAGE - 1) / PAGE * PAGE);
  fill(heap, REGION_BYTES, 61);
  report("heap", heap, REGION_BYTES);
}

int run_maps(const struct options *given) {
  options_allow(given, (const char *const[]){"dir", "pages", "without", "uring_buffers", NULL});
  options = given;
  struct mutable_arena arena = make_mutable_arena(option_number(options, "pages", 2048));
  report("arena", arena.start, arena.pages * PAGE);
  make_private();
  make_sparse();
  make_huge();
  make_advised();
  make_files();
  make_shared();
  make_kernel_rings();
  make_stack_and_heap();
  say("ready pid=%d", getpid());
  char command[128];
  while (next_command(command, sizeof command)) {
    unsigned long long seed = 0, operations = 200;
    if (sscanf(command, "mutate %llu %llu", &seed, &operations) >= 1) {
      mutate(&arena, seed, operations);
      say("done");
    } else {
      say("unknown");
    }
  }
  return 0;
}
