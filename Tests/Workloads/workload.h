// What the modes of `workload` share: options, the line protocol on stdin and stdout, and the
// deterministic page contents that a test can compute again.
#ifndef WORKLOAD_H
#define WORKLOAD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096u
#define HUGE_PAGE (2u << 20)

/// The `key=value` words of the command line.
struct options {
  int count;
  char **words;
};

/// The value of `key`, or `fallback`. A number may end in K, M or G (1024-based).
uint64_t option_number(const struct options *options, const char *key, uint64_t fallback);
/// The value of `key`, or `fallback`, which may be NULL.
const char *option_text(const struct options *options, const char *key, const char *fallback);
/// Whether the comma-separated list `key` holds `item`.
bool option_lists(const struct options *options, const char *key, const char *item);
/// Fails, with exit code 64, on a key that is in neither the NULL-terminated list nor common.
void options_allow(const struct options *options, const char *const *keys);

/// Prints "workload: ...: strerror" and exits with 1.
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);
/// One whole line on stdout in one write, so that lines of several threads never mix.
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
/// The next line of stdin without its newline; false when stdin closed.
bool next_command(char *line, size_t capacity);
/// Answers nothing until stdin closes.
void wait_for_stdin_to_close(void);
/// Splits into a background session of its own (see main.c, `detached`).
void detach(const struct options *options);
/// In a detached workload: waits for SIGUSR1 (true), or for the lifetime to end (false).
bool next_detached_check(void);
bool is_detached(void);
/// Points stdout at `log` and the other standard descriptors at /dev/null: a detached workload
/// holds no end of a pipe of the test's.
void leave_standard_descriptors(const struct options *options);

uint64_t monotonic_ns(void);
void sleep_ns(uint64_t nanoseconds);
/// splitmix64's finalizer: a good 64-bit mix, easy to write again in another language.
uint64_t mix(uint64_t value);
/// Steps a generator state; never returns the same sequence for two seeds.
uint64_t next_random(uint64_t *state);
/// Private anonymous read-write memory; dies if there is none.
void *map_private(size_t bytes);
/// The same, aligned to 2 MiB.
void *map_private_huge_aligned(size_t bytes);
/// Fills with half-compressible bytes that depend on `key` only.
void fill(void *start, size_t bytes, uint64_t key);
/// Whether the memory holds what `fill` wrote.
bool is_filled(const void *start, size_t bytes, uint64_t key);
/// The mapping of /proc/self/maps that holds `address`; false if there is none.
bool mapping_of(const void *address, uintptr_t *start, uintptr_t *end);

int run_stamp(const struct options *options);
int run_maps(const struct options *options);
int run_threads(const struct options *options);
int run_execer(const struct options *options);
int run_exiter(const struct options *options);
int run_leaderless(const struct options *options);
int run_idle(const struct options *options);
int run_zombie(const struct options *options);
int run_vfork(const struct options *options);
int run_uffd(const struct options *options);
int run_seccomp(const struct options *options);
int run_traced(const struct options *options);
int run_elf32(const struct options *options);
int run_pinned(const struct options *options);
int run_hostile(const struct options *options);
int run_parked(const struct options *options);
int run_state(const struct options *options);
int run_tree(const struct options *options);
int run_treeleaf(const char *milliseconds);

#endif
