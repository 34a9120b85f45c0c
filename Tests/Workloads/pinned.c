// Mode `pinned`: pages that the kernel or a device writes through a pin, which write tracking of a
// running process can miss: O_DIRECT reads, libaio, io_uring's registered buffers, and another
// process's process_vm_writev.
//
// A file holds VERSIONS blocks; block v is fill(key = mix(v)). Each step reads a random block into a
// random page of the arena, then puts v into table[page], a 64-bit word. So in a consistent image
// every page is the block that the table names, except for the one being read, which may be any
// mixture of two blocks.
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define VERSIONS 64u

static char *arena;
static uint64_t *table, pages, rate;
static int file;
/// Shared with a child that writes.
static struct {
  atomic_bool paused, parked;
  atomic_ulong reads;
} *state;

/// Reads one block of the file into a page; false, with errno, if it failed.
static bool (*read_block)(char *page, uint64_t version);

static bool read_direct(char *page, uint64_t version) {
  return pread(file, page, PAGE, (off_t)(version * PAGE)) == (ssize_t)PAGE;
}

static aio_context_t context;

static bool read_aio(char *page, uint64_t version) {
  struct iocb request = {
      .aio_lio_opcode = IOCB_CMD_PREAD,
      .aio_fildes = (uint32_t)file,
      .aio_buf = (uintptr_t)page,
      .aio_nbytes = PAGE,
      .aio_offset = (int64_t)(version * PAGE),
  };
  struct iocb *requests[] = {&request};
  struct io_event event;
  if (syscall(SYS_io_submit, context, 1, requests) != 1) return false;
  long n;
  do n = syscall(SYS_io_getevents, context, 1, 1, &event, NULL);
  while (n == 0 || (n < 0 && errno == EINTR));  // a stop of the process ends the wait
  return n == 1 && event.res == (int64_t)PAGE;
}

/// Writes a word or a page of the parent's memory, as this child knows its addresses.
static bool write_remotely(void *start, const void *bytes, size_t count) {
  struct iovec local = {(void *)(uintptr_t)bytes, count}, remote = {start, count};
  return process_vm_writev(getppid(), &local, 1, &remote, 1, 0) == (ssize_t)count;
}

static int remote_uffd;
static char *remote_block;

/// Gives the writer its block after a while, which it waits for with the page of the parent pinned.
static void *serve_block(void *block) {
  struct uffd_msg message;
  while (read(remote_uffd, &message, sizeof message) == sizeof message) {
    sleep_ns(50000000);
    struct uffdio_copy copy = {.dst = (uintptr_t)remote_block, .src = (uintptr_t)block, .len = PAGE};
    if (ioctl(remote_uffd, UFFDIO_COPY, &copy)) die("UFFDIO_COPY");
  }
  return NULL;
}

static _Alignas(PAGE) char block[PAGE];  // O_DIRECT wants it so

static bool read_remote(char *page, uint64_t version) {
  // One write in 16 is slow.
  static uint64_t count;
  if (pread(file, block, PAGE, (off_t)(version * PAGE)) != (ssize_t)PAGE) return false;
  if (++count % 16) return write_remotely(page, block, PAGE);
  madvise(remote_block, PAGE, MADV_DONTNEED);
  return write_remotely(page, remote_block, PAGE);
}

static void set_up_remote(void) {
  remote_uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
  struct uffdio_api api = {.api = UFFD_API};
  remote_block = map_private(PAGE);
  struct uffdio_register range = {
      .range = {(uintptr_t)remote_block, PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  pthread_t thread;
  if (remote_uffd < 0 || ioctl(remote_uffd, UFFDIO_API, &api) ||
      ioctl(remote_uffd, UFFDIO_REGISTER, &range) ||
      pthread_create(&thread, NULL, serve_block, block))
    die("a userfaultfd");
}

static struct {
  int fd;
  struct io_uring_params params;
  char *ring;
  struct io_uring_sqe *entries;
} uring;

static _Atomic uint32_t *ring_word(uint32_t offset) { return (void *)(uring.ring + offset); }

static bool read_fixed(char *page, uint64_t version) {
  uint32_t tail = atomic_load(ring_word(uring.params.sq_off.tail));
  uint32_t slot = tail & (uring.params.sq_entries - 1);
  uring.entries[slot] = (struct io_uring_sqe){
      .opcode = IORING_OP_READ_FIXED,
      .fd = file,
      .off = version * PAGE,
      .addr = (uintptr_t)page,
      .len = PAGE,
  };
  *ring_word(uring.params.sq_off.array + slot * 4) = slot;
  atomic_store(ring_word(uring.params.sq_off.tail), tail + 1);
  _Atomic uint32_t *head = ring_word(uring.params.cq_off.head);
  _Atomic uint32_t *end = ring_word(uring.params.cq_off.tail);
  unsigned submit = 1;
  while (atomic_load(head) == atomic_load(end)) {
    long n = syscall(SYS_io_uring_enter, uring.fd, submit, 1, IORING_ENTER_GETEVENTS, NULL, 0);
    if (n < 0 && errno != EINTR) return false;
    if (n > 0) submit = 0;
  }
  struct io_uring_cqe *completions = (void *)(uring.ring + uring.params.cq_off.cqes);
  int result = completions[atomic_load(head) & (uring.params.cq_entries - 1)].res;
  atomic_fetch_add(head, 1);
  errno = result < 0 ? -result : EIO;
  return result == (int)PAGE;
}

static void set_up_uring(void) {
  uring.fd = (int)syscall(SYS_io_uring_setup, 8, &uring.params);
  if (uring.fd < 0) die("io_uring_setup");
  if (!(uring.params.features & IORING_FEAT_SINGLE_MMAP)) {
    errno = ENOSYS;
    die("io_uring with one ring mapping (Linux 5.4)");
  }
  size_t bytes = uring.params.sq_off.array + uring.params.sq_entries * sizeof(uint32_t);
  size_t completions =
      uring.params.cq_off.cqes + uring.params.cq_entries * sizeof(struct io_uring_cqe);
  if (completions > bytes) bytes = completions;
  uring.ring = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring.fd,
                    IORING_OFF_SQ_RING);
  uring.entries = mmap(NULL, uring.params.sq_entries * sizeof(struct io_uring_sqe),
                       PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring.fd,
                       IORING_OFF_SQES);
  if (uring.ring == MAP_FAILED || uring.entries == MAP_FAILED) die("mmap of io_uring");
  struct iovec buffer = {arena, pages * PAGE};
  if (syscall(SYS_io_uring_register, uring.fd, IORING_REGISTER_BUFFERS, &buffer, 1))
    die("IORING_REGISTER_BUFFERS");
}

static void open_file(const char *directory) {
  char path[4096];
  snprintf(path, sizeof path, "%s/workload-pinned-XXXXXX", directory);
  file = mkostemp(path, O_CLOEXEC | O_DIRECT);
  if (file < 0) die("%s (with O_DIRECT)", path);
  unlink(path);
  char *block = map_private(PAGE);
  for (uint64_t version = 0; version < VERSIONS; version++) {
    fill(block, PAGE, mix(version));
    if (pwrite(file, block, PAGE, (off_t)(version * PAGE)) != (ssize_t)PAGE) die("pwrite");
  }
  munmap(block, PAGE);
}

static void step(uint64_t *random) {
  uint64_t page = next_random(random) % pages, version = next_random(random) % VERSIONS;
  if (!read_block(arena + page * PAGE, version)) die("reading a block");
  atomic_thread_fence(memory_order_release);
  if (read_block != read_remote)
    *(volatile uint64_t *)&table[page] = version;
  else if (!write_remotely(&table[page], &version, sizeof version))
    die("process_vm_writev");
  atomic_fetch_add(&state->reads, 1);
}

static void *reader(void *unused) {
  (void)unused;
  uint64_t random = 3;
  for (;;) {
    while (atomic_load(&state->paused)) {
      atomic_store(&state->parked, true);
      sleep_ns(1000000);
    }
    atomic_store(&state->parked, false);
    for (uint64_t i = 0; i < rate / 1000 + 1 && !atomic_load(&state->paused); i++) step(&random);
    sleep_ns(1000000);
  }
  return NULL;
}

static void stop(void) {
  atomic_store(&state->parked, false);
  atomic_store(&state->paused, true);
  while (!atomic_load(&state->parked)) sleep_ns(100000);
}

static void check(void) {
  stop();
  uint64_t page = 0;
  while (page < pages && is_filled(arena + page * PAGE, PAGE, mix(table[page]))) page++;
  atomic_store(&state->paused, false);
  if (page < pages)
    say("bad page %lu", page);
  else
    say("ok");
}

int run_pinned(const struct options *options) {
  options_allow(options, (const char *const[]){"how", "pages", "rate", "dir", NULL});
  const char *how = option_text(options, "how", "direct");
  pages = option_number(options, "pages", 256);
  rate = option_number(options, "rate", 1000);
  state = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (state == MAP_FAILED) die("mmap");
  arena = map_private(pages * PAGE);
  table = map_private((pages * 8 + PAGE - 1) / PAGE * PAGE);
  for (uint64_t page = 0; page < pages; page++) fill(arena + page * PAGE, PAGE, mix(0));
  open_file(option_text(options, "dir", "/var/tmp"));
  if (strcmp(how, "direct") == 0) {
    read_block = read_direct;
  } else if (strcmp(how, "aio") == 0) {
    read_block = read_aio;
    if (syscall(SYS_io_setup, 8, &context)) die("io_setup");
  } else if (strcmp(how, "fixed") == 0) {
    read_block = read_fixed;
    set_up_uring();
  } else if (strcmp(how, "remote") == 0) {
    read_block = read_remote;
  } else {
    fprintf(stderr, "workload: how=%s is none of direct, aio, fixed, remote\n", how);
    return 64;
  }
  if (read_block == read_remote) {
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      set_up_remote();
      reader(NULL);
    }
  } else {
    pthread_t thread;
    if (pthread_create(&thread, NULL, reader, NULL)) die("pthread_create");
  }
  say("ready pid=%d arena=0x%lx pages=%lu table=0x%lx", getpid(), (uintptr_t)arena, pages,
      (uintptr_t)table);
  char command[128];
  while (next_command(command, sizeof command)) {
    if (strcmp(command, "check") == 0)
      check();
    else if (strcmp(command, "stop") == 0)
      stop(), say("ok");
    else if (strcmp(command, "go") == 0)
      atomic_store(&state->paused, false), say("ok");
    else if (strcmp(command, "report") == 0)
      say("reads=%lu", (unsigned long)atomic_load(&state->reads));
    else
      say("unknown");
  }
  return 0;
}
