// Mode `shared`: a shared object and private memory that change on command alone, so that a test can
// say between two rounds what the next one has to find. A page is fill(key = VERSION << 32 ^ page).
//
// Commands, each answered with `ok`; FIRST and COUNT are in pages:
//   object FIRST COUNT VERSION, private FIRST COUNT VERSION   writes pages
//   punch FIRST COUNT      takes pages out of the object (MADV_REMOVE)
//   drop FIRST COUNT       takes private pages away (MADV_DONTNEED)
//   grow COUNT             makes the object (a memfd) longer, and maps all of it
//   close                  unmaps the object
//   open                   maps the same object again
//   new                    another object takes the place of the old one, which is gone
#include "workload.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

static char *object, *private;
static size_t object_pages;
static int fd = -1;

static void map_object(const char *kind) {
  if (strcmp(kind, "memfd") == 0) {
    if (fd < 0) fd = memfd_create("shared", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)(object_pages * PAGE))) die("a memfd");
    object = mmap(NULL, object_pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  } else if (strcmp(kind, "sysv") == 0) {
    int id = shmget(IPC_PRIVATE, object_pages * PAGE, IPC_CREAT | 0600);
    if (id < 0) die("shmget");
    object = shmat(id, NULL, 0);
    shmctl(id, IPC_RMID, NULL);
  } else {
    object = mmap(NULL, object_pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                  -1, 0);
  }
  if (object == MAP_FAILED) die("a shared object of kind %s", kind);
}

static void write_pages(char *start, size_t first, size_t count, uint64_t version) {
  for (size_t page = first; page < first + count; page++)
    fill(start + page * PAGE, PAGE, version << 32 ^ page);
}

static bool obey(const char *command, const char *kind) {
  char word[16];
  unsigned long first = 0, count = 0, version = 0;
  if (sscanf(command, "%15s %lu %lu %lu", word, &first, &count, &version) < 1) return false;
  if (strcmp(word, "object") == 0) {
    write_pages(object, first, count, version);
  } else if (strcmp(word, "private") == 0) {
    write_pages(private, first, count, version);
  } else if (strcmp(word, "punch") == 0) {
    if (madvise(object + first * PAGE, count * PAGE, MADV_REMOVE)) die("MADV_REMOVE");
  } else if (strcmp(word, "drop") == 0) {
    if (madvise(private + first * PAGE, count * PAGE, MADV_DONTNEED)) die("MADV_DONTNEED");
  } else if (strcmp(word, "grow") == 0) {
    munmap(object, object_pages * PAGE);
    object_pages += first;
    map_object(kind);
  } else if (strcmp(word, "close") == 0) {
    munmap(object, object_pages * PAGE);
  } else if (strcmp(word, "open") == 0) {
    map_object(kind);
  } else if (strcmp(word, "new") == 0) {
    munmap(object, object_pages * PAGE);
    if (fd >= 0) close(fd);
    fd = -1;
    map_object(kind);
  } else {
    return false;
  }
  return true;
}

int run_shared(const struct options *options) {
  options_allow(options, (const char *const[]){"kind", "pages", NULL});
  const char *kind = option_text(options, "kind", "memfd");
  size_t pages = object_pages = option_number(options, "pages", 256);
  map_object(kind);
  private = map_private(pages * PAGE);
  write_pages(object, 0, pages, 0);
  write_pages(private, 0, pages, 0);
  say("ready pid=%d object=0x%lx private=0x%lx", getpid(), (uintptr_t)object, (uintptr_t)private);
  char command[128];
  while (next_command(command, sizeof command)) say(obey(command, kind) ? "ok" : "unknown");
  return 0;
}
