// Mode `hostile`: shared objects, files, child processes and threads.
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct object *any_object(struct hostile *h) { return &h->objects[hostile_below(h, 4)]; }
static size_t any_page(struct hostile *h) { return hostile_below(h, OBJECT_PAGES) * PAGE; }

/// Through the one mapping or the other.
void op_object_store(struct hostile *h) {
  struct object *object = any_object(h);
  char *start = hostile_below(h, 2) ? object->start : object->twin;
  for (uint64_t i = hostile_below(h, 8) + 1; i > 0; i--) hostile_stamp(h, start + any_page(h), PAGE);
}

/// Through the descriptor, past every page table.
void op_object_pwrite(struct hostile *h) {
  struct object *object = &h->objects[hostile_below(h, 2)];
  char bytes[512];
  hostile_stamp(h, bytes, sizeof bytes);
  off_t offset = (off_t)hostile_below(h, OBJECT_PAGES * PAGE - sizeof bytes);
  if (pwrite(object->fd, bytes, sizeof bytes, offset) != sizeof bytes) die("pwrite");
}

void op_object_drop(struct hostile *h) {
  struct object *object = any_object(h);
  size_t offset = any_page(h), count = 1 + hostile_below(h, 8);
  if (offset + count * PAGE > OBJECT_PAGES * PAGE) count = 1;
  uint64_t how = hostile_below(h, 3);
  if (how == 0) madvise(object->start + offset, count * PAGE, MADV_REMOVE);
  if (how == 1) madvise(object->start + offset, count * PAGE, MADV_DONTNEED);
  if (how == 2 && object->fd >= 0)
    fallocate(object->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
              (off_t)(count * PAGE));
}

static void cut_and_restore(int fd, uint64_t pages) {
  if (ftruncate(fd, (off_t)(pages * PAGE)) || ftruncate(fd, OBJECT_PAGES * PAGE)) die("ftruncate");
}

void op_object_resize(struct hostile *h) {
  int fd = h->objects[hostile_below(h, 2)].fd;
  cut_and_restore(fd, hostile_below(h, OBJECT_PAGES));
}

void op_file_store(struct hostile *h) {
  char *start = hostile_below(h, 4) ? h->file_private : h->file_shared;
  for (uint64_t i = hostile_below(h, 8) + 1; i > 0; i--) hostile_stamp(h, start + any_page(h), PAGE);
}

/// Back to what the file holds.
void op_file_drop(struct hostile *h) {
  size_t offset = any_page(h);
  madvise(h->file_private + offset, PAGE, MADV_DONTNEED);
  if (hostile_below(h, 2)) (void)*(volatile char *)(h->file_private + offset);
}

void op_file_pwrite(struct hostile *h) {
  char bytes[512];
  hostile_stamp(h, bytes, sizeof bytes);
  off_t offset = (off_t)hostile_below(h, OBJECT_PAGES * PAGE - sizeof bytes);
  if (pwrite(h->file, bytes, sizeof bytes, offset) != sizeof bytes) die("pwrite");
}

/// Takes private copies away too (mmap(2), truncate behind a mapping).
void op_file_truncate(struct hostile *h) {
  cut_and_restore(h->file, OBJECT_PAGES / 2 + hostile_below(h, OBJECT_PAGES / 2));
}

// MARK: Processes

static void reap(pid_t child) {
  int status;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) die("waitpid");
  if (!WIFEXITED(status) || WEXITSTATUS(status)) {
    errno = ECHILD;
    die("the child's status is %x", (unsigned)status);
  }
}

/// A child with memory of its own, copied on write, both sides writing.
void op_fork(struct hostile *h) {
  pid_t child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    for (size_t i = 0; i < STEADY_PAGES; i += 8) h->steady[i * PAGE]++;
    _exit(0);
  }
  for (size_t i = 0; i < STEADY_PAGES; i += 16) h->steady[i * PAGE]++;
  op_store_pages(h);
  reap(child);
}

/// Another process writes the shared objects. The kernel lets this thread come to a stop only when
/// that process has ended (CLONE_VFORK), though they share no private memory.
void op_child_store(struct hostile *h) {
  long child = syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
  if (child < 0) die("clone");
  if (child == 0) {
    for (int i = 0; i < 8; i++) op_object_store(h);
    _exit(0);
  }
  next_random(&h->random);
  reap((pid_t)child);
}

void op_exec(struct hostile *h) {
  (void)h;
  char *const arguments[] = {"true", NULL}, *const environment[] = {NULL};
  pid_t child = vfork();
  if (child < 0) die("vfork");
  if (child == 0) {
    execve("/bin/true", arguments, environment);
    _exit(1);
  }
  reap(child);
}

static void *live_briefly(void *argument) {
  struct hostile *h = argument;
  volatile char frame[8 * PAGE];
  for (size_t i = 0; i < sizeof frame; i += PAGE) frame[i] = (char)h->operations;
  return NULL;
}

/// A thread comes and goes: a stack is mapped, or taken from glibc's cache.
void op_thread(struct hostile *h) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, live_briefly, h)) die("pthread_create");
  if (pthread_join(thread, NULL)) die("pthread_join");
}
