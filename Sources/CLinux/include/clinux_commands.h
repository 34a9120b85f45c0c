#ifndef CLINUX_COMMANDS_H
#define CLINUX_COMMANDS_H

#include <stddef.h>
#include <stdint.h>

/// Starts `/bin/sh -c command` in a process group of its own: no signal blocked or ignored, standard
/// input from /dev/null, standard output joined to standard error, nothing else inherited. It waits
/// until a line is written to `gate`, and ends if that is closed without one.
/// `extra`: NAME=VALUE strings that are added to the environment. The pid.
int clinux_spawn_shell(const char *command, const char *const *extra, size_t extra_count,
                       int *gate);
/// waitpid(pid): 0 if it runs after `milliseconds`, 1 with `status` filled if it ended.
int clinux_wait_child(int pid, int milliseconds, int *status);
/// kill(-group, signal).
int clinux_signal_group(int group, int signal);

/// A message to a guardian.
struct clinux_guardian_order {
  /// The process group to kill with this process; 0 for none.
  int32_t group;
  /// The signal for the guarded processes when this process ends. 0: none, and it forgets them.
  int32_t signal;
  /// The process that is to get this RLIMIT_NOFILE back, soft and hard; 0 for none.
  int32_t limited;
  uint64_t limit[2];
};

/// Forks a process that outlives this one, whatever ends it, by the moment that it takes to kill the
/// process group, to send a signal to the guarded processes and to give a limit back, if the last
/// order says so.
/// `control`: this end of a socket to it; closing it ends the guardian.
int clinux_fork_guardian(int *control);
int clinux_order_guardian(int control, const struct clinux_guardian_order *order);
/// Adds the process behind `descriptor` to the guarded ones, or something that is to stay open until
/// they got their signal; returns when the guardian has it.
int clinux_add_guarded(int control, int descriptor, const struct clinux_guardian_order *order);

#endif
