#ifndef CLINUX_PROCESS_H
#define CLINUX_PROCESS_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

int clinux_gettid(void);
/// The calling thread's name in ps and gdb: at most 15 bytes.
void clinux_set_thread_name(const char *name);
/// A lock for readers and writers that lets a waiting writer go before later readers.
void clinux_init_rwlock(pthread_rwlock_t *lock);
int clinux_pidfd_open(int pid, unsigned flags);
/// A copy of descriptor `fd` of the process behind `pidfd`.
int clinux_pidfd_getfd(int pidfd, int fd);
int clinux_pidfd_send_signal(int pidfd, int signal);
/// Sends `signal` to one thread.
int clinux_tgkill(int pid, int tid, int signal);
/// 1 once the process has exited, 0 before.
int clinux_pidfd_exited(int pidfd);
/// kcmp(KCMP_VM): 0 if both processes share one address space, above 0 if not.
int clinux_compare_memory(int pid, int other_pid);
/// kcmp(KCMP_FILE): 0 if both descriptors are one open file, above 0 if not.
int clinux_compare_file(int pid, int other_pid, int fd, int other_fd);
/// prlimit(RLIMIT_NOFILE): soft and hard limit before, and from now on unless `set` is NULL.
int clinux_descriptor_limit(int pid, const uint64_t set[2], uint64_t old[2]);
/// The highest nice value for the calling thread alone.
int clinux_prefer_this_thread(void);
/// The calling thread's own nice value.
int clinux_nice(void);
int clinux_set_nice(int value);
/// SCHED_IDLE for the calling thread, or SCHED_OTHER again.
int clinux_set_idle(int is_idle);
/// ioprio_set(2) for the calling thread: 2 best effort, 3 idle.
int clinux_set_io_priority(int class, int level);
/// Gives up, for the calling thread, every effective and permitted capability that is not in `kept`.
int clinux_keep_capabilities(uint64_t kept);
/// process_madvise(MADV_COLLAPSE) on one range of the process behind `pidfd`.
int clinux_collapse(int pidfd, uint64_t start, uint64_t byte_count);
/// Processors in the calling thread's affinity mask.
int clinux_allowed_processors(void);
/// CLOCK_MONOTONIC, nanoseconds.
uint64_t clinux_monotonic_ns(void);
/// CLOCK_BOOTTIME, nanoseconds.
uint64_t clinux_boottime_ns(void);
/// CLOCK_THREAD_CPUTIME_ID, nanoseconds.
uint64_t clinux_thread_cpu_ns(void);
/// How often the calling thread has waited for something (getrusage(2), ru_nvcsw).
uint64_t clinux_thread_waits(void);
/// Sleeps at most this long.
void clinux_pause_ns(uint64_t nanoseconds);
/// mmap of private anonymous memory for our own buffers; 0 on success.
int clinux_map_anonymous(size_t byte_count, void **out);
int clinux_unmap(void *address, size_t byte_count);
/// Moves a mapping to `to`, in place of what is mapped there (mremap(2), MREMAP_FIXED).
int clinux_move_mapping(void *from, size_t byte_count, void *to);
/// Maps inaccessible memory at `address` if nothing is mapped there, else -EEXIST.
int clinux_reserve_at(void *address, size_t byte_count);
int clinux_mprotect(void *address, size_t byte_count, int protection);
int clinux_madvise(void *address, size_t byte_count, int advice);

/// memmem(3): the offset of the first match, or -1.
long clinux_find(const void *bytes, size_t count, const void *wanted, size_t wanted_count);

/// Forks a child that waits, stopped and traced by the calling thread, to be made into anything.
/// It never runs another instruction of ours, and dies with the calling thread.
int clinux_fork_stopped(void);

#endif
