// What the modes `parked` and `state` share: a log of what a target must never see.
#ifndef SELFCHECK_H
#define SELFCHECK_H

#include "workload.h"

#include <stdatomic.h>
#include <sys/types.h>

/// Notes something that would not have happened without a tracer. The first text is kept.
/// Safe in signal handlers; makes no system call.
__attribute__((format(printf, 1, 2))) void anomaly(const char *format, ...);
/// Notes another process's descriptors, for the reports.
void remember_descriptors(pid_t pid);
/// Notes the process's descriptors and this thread's signal mask and alternate stack.
void remember_surroundings(void);
/// Notes an anomaly if this thread's mask or alternate stack differ from what it remembered.
void check_thread_surroundings(void);
/// Shared with the processes that a mode forks.
struct shared_log {
  /// Counted up by whatever the mode does; a report waits until it has moved.
  atomic_ulong ticks;
  /// Handlers that ran (on_counted_signal is the handler).
  atomic_ulong handled;
  atomic_ulong anomalies;
  atomic_bool has_text;
  char first_text[256];
};
extern struct shared_log *shared_log;
#define ticks (shared_log->ticks)
#define handled (shared_log->handled)
void on_counted_signal(int signal);
/// Serves `report` -> "ok ticks=N handled=N" | "bad COUNT TEXT", and whatever `other` answers
/// (false: unknown), until stdin closes. `moves`: whether ticks have to advance.
void serve_reports(bool moves, bool (*other)(const char *command));
/// pthread_create with all signals blocked in the new thread, or die.
void start_quiet_thread(void *(*body)(void *), void *argument);

#endif
