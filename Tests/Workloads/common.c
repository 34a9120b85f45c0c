// Options, lines, clocks and page contents: see workload.h.
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

// MARK: Options

const char *option_text(const struct options *options, const char *key, const char *fallback) {
  size_t length = strlen(key);
  for (int i = 0; i < options->count; i++) {
    const char *word = options->words[i];
    if (strncmp(word, key, length) == 0 && word[length] == '=') return word + length + 1;
  }
  return fallback;
}

uint64_t option_number(const struct options *options, const char *key, uint64_t fallback) {
  const char *text = option_text(options, key, NULL);
  if (!text) return fallback;
  char *end = NULL;
  errno = 0;
  uint64_t value = strtoull(text, &end, 0);
  if (end != text && *end) {
    const char *unit = strchr("KMG", *end);
    if (unit) {
      value <<= 10 * (unit - "KMG" + 1);
      end++;
    }
  }
  if (errno || end == text || *end) {
    fprintf(stderr, "workload: %s=%s is not a number\n", key, text);
    exit(64);
  }
  return value;
}

bool option_lists(const struct options *options, const char *key, const char *item) {
  const char *list = option_text(options, key, "");
  size_t length = strlen(item);
  while (*list) {
    size_t word = strcspn(list, ",");
    if (word == length && strncmp(list, item, length) == 0) return true;
    list += word;
    if (*list == ',') list++;
  }
  return false;
}

void options_allow(const struct options *options, const char *const *keys) {
  for (int i = 0; i < options->count; i++) {
    const char *word = options->words[i];
    size_t length = strcspn(word, "=");
    bool known = word[length] == '=' && length == strlen("pdeathsig") &&
                 strncmp(word, "pdeathsig", length) == 0;
    for (const char *const *key = keys; *key && !known; key++)
      known = word[length] == '=' && strlen(*key) == length && strncmp(word, *key, length) == 0;
    if (known) continue;
    fprintf(stderr, "workload: this mode has no option '%s'\n", word);
    exit(64);
  }
}

// MARK: Lines

void die(const char *format, ...) {
  int error = errno;
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "workload: ");
  vfprintf(stderr, format, arguments);
  fprintf(stderr, ": %s\n", strerror(error));
  va_end(arguments);
  exit(1);
}

void say(const char *format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line - 1, format, arguments);
  va_end(arguments);
  if (length < 0) return;
  if ((size_t)length > sizeof line - 2) length = sizeof line - 2;
  line[length++] = '\n';
  for (int done = 0; done < length;) {
    ssize_t n = write(1, line + done, (size_t)(length - done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) exit(0);  // the reader has gone
    done += (int)n;
  }
}

bool next_command(char *line, size_t capacity) {
  // Byte by byte: commands are rare, and nothing is left in a buffer that a dump would copy.
  size_t length = 0;
  for (;;) {
    char byte;
    ssize_t n = read(0, &byte, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    if (byte == '\n') break;
    if (length + 1 < capacity) line[length++] = byte;
  }
  line[length] = 0;
  return true;
}

void wait_for_stdin_to_close(void) {
  char line[128];
  while (next_command(line, sizeof line)) say("unknown");
}

// MARK: Detached

static bool detached;
static uint64_t end_of_life;

void detach(const struct options *options) {
  // Blocked before any thread exists, so that only next_detached_signal takes them.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGUSR2);
  sigprocmask(SIG_BLOCK, &set, NULL);
  pid_t child = fork();
  if (child < 0) die("fork");
  // The caller reaps this parent at once; init reaps the child, so its pid is free to restore.
  if (child > 0) _exit(0);
  if (setsid() < 0) die("setsid");
  detached = true;
  end_of_life = monotonic_ns() + option_number(options, "lifetime", 600) * 1000000000u;
}

bool is_detached(void) { return detached; }

void leave_standard_descriptors(const struct options *options) {
  int null = open("/dev/null", O_RDWR);
  int out = open(option_text(options, "log", "/dev/null"), O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (null < 0 || out < 0) die("open log");
  dup2(null, 0);
  dup2(out, 1);
  dup2(null, 2);
  // Whoever started the test may have left sockets open, which criu cannot restore.
  close_range(3, ~0u, 0);
  if (null > 2) close(null);
  if (out > 2) close(out);
}

int next_detached_signal(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGUSR2);
  while (monotonic_ns() < end_of_life) {
    struct timespec second = {1, 0};
    // A freeze may end this wait with EINTR; that is no reason to end.
    int signal = sigtimedwait(&set, NULL, &second);
    if (signal > 0) return signal;
  }
  return 0;
}

// MARK: Clocks and numbers

uint64_t monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void sleep_ns(uint64_t nanoseconds) {
  struct timespec left = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
  while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
  }
}

uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

uint64_t next_random(uint64_t *state) { return mix(*state += 0x9e3779b97f4a7c15u); }

// MARK: Memory

void *map_private(size_t bytes) {
  void *start =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) die("mmap of %zu bytes", bytes);
  return start;
}

void *map_private_huge_aligned(size_t bytes) {
  bytes = (bytes + PAGE - 1) / PAGE * PAGE;
  char *start = map_private(bytes + HUGE_PAGE);
  size_t before = (HUGE_PAGE - (uintptr_t)start % HUGE_PAGE) % HUGE_PAGE;
  if (before) munmap(start, before);
  munmap(start + before + bytes, HUGE_PAGE - before);
  return start + before;
}

// Words 0-7, 16-23, ... are text, the others random: LZ4 halves it, as it does many real heaps.
static uint64_t fill_word(size_t index, uint64_t *state) {
  return index & 8 ? next_random(state) : 0x20706d75646d656du;
}

void fill(void *start, size_t bytes, uint64_t key) {
  uint64_t *words = start;
  for (size_t i = 0; i < bytes / 8; i++) words[i] = fill_word(i, &key);
}

bool is_filled(const void *start, size_t bytes, uint64_t key) {
  const uint64_t *words = start;
  for (size_t i = 0; i < bytes / 8; i++)
    if (words[i] != fill_word(i, &key)) return false;
  return true;
}

bool mapping_of(const void *address, uintptr_t *start, uintptr_t *end) {
  FILE *maps = fopen("/proc/self/maps", "re");
  if (!maps) die("/proc/self/maps");
  char line[1024];
  bool found = false;
  while (!found && fgets(line, sizeof line, maps))
    found = sscanf(line, "%lx-%lx", start, end) == 2 && (uintptr_t)address >= *start &&
            (uintptr_t)address < *end;
  fclose(maps);
  return found;
}
