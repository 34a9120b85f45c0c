// The programs that memdump's tests dump: `workload MODE key=value...`.
//
// Each mode prints one line `ready pid=N ...` on stdout once it is set up, then reads commands, a
// line each, on stdin, and exits with 0 when stdin closes. An unknown command answers `unknown`.
// Numbers take K, M and G. Any mode takes `pdeathsig=0`: without it the workload is also killed
// when the thread that started it ends (PR_SET_PDEATHSIG follows the thread, not the process).
//
// MODE        options (default)               ready line, and what it does
// ----------  ------------------------------  ------------------------------------------------------
// stamp       pages=4096 rate=0|N|max hot=100 arena=0x pages=N table=0x drop_arena=0x drop_pages=N
//             cold=10 whole=50 threads=1      drop_table=0x seed=S. Pages that say which version they
//             seed=1 thp=0|1 drop=0|1         are (stamp.c). Commands: `check` -> ok | bad page N,
//             drop_pages=N gap=0|1|2          `gap` -> gap=NS, `stop` and `go` (the writers) -> ok,
//             moves=0|1                       `report` -> writes=N drops=N.
//             detached=0|1 log=PATH
//             lifetime=600
// maps        dir=DIR pages=2048              region NAME 0xSTART 0xEND (end excluded), or absent NAME
//             without=NAME,... uring_buffers  REASON, one line each before the ready line. Commands:
//             =0|1                            `mutate SEED [OPERATIONS]` -> done (in region arena).
// threads     count=14 spinners=1             count=N. Blocked threads of every kind. Commands:
//                                             `report` -> eintr=N early=N wrong=N alive=N,
//                                             `wake` -> woken=N of=N.
// execer      bytes=64M threads=2 after_ms=0  `exec` (or after_ms): becomes `workload idle`, which
//                                             prints a ready line of its own.
// exiter      as execer                       `exit` (or after_ms): exits with 0 in the midst.
// leaderless  bytes=64M                       The thread-group leader has ended, others live.
// idle        pages=16 reserve=0              arena=0x pages=N. Touched memory, sleeping: `zero`
//             zero=0 every=1                  percent zeros, each `every`th page with holes between;
//                                             besides it `reserve` bytes of untouched address space.
// zombie                                      zombie=PID, a child that exited and is not reaped.
// vfork                                       child=PID, a vfork child that shares the memory of pid.
// uffd        pages=64                        arena=0x pages=N uffd=FD. Registered with a
//                                             userfaultfd of its own (MISSING|WP).
// seccomp                                     counter=0x. userfaultfd(2) kills it. `report` -> count=N
// traced                                      pid is the child's: tracer=PID traces it.
// elf32       path=PATH                       path=PATH. Wrote a 32-bit program there that sleeps
//                                             until killed, or until its parent ends.
// pinned      how=direct|aio|fixed|remote     arena=0x pages=N table=0x. Pages written through pins
//             pages=256 rate=1000             (pinned.c). Commands: `check` -> ok | bad page N,
//             dir=/var/tmp                    `stop` and `go` (the writer) -> ok, `report` -> reads=N.
// shared      kind=memfd|sysv|anonymous       object=0x private=0x. A shared object and as many
//             pages=256                       private pages, written on command (shared.c).
// hostile     seed=1 ops=N rate=10000         play=0x operations=0x. All kinds of memory, rearranged
//             threads=1 dir=/var/tmp          and written at random (hostile.c), `ops` operations at
//             remote_writes=0|1               `rate` a second, then slowly. Commands: `until N`
//                                             -> operations=N, once so many are done.
// parked      call=all|NAME                   threads=N. A thread in each blocking call, or the first
//                                             thread in one (parked_calls.c). Commands: `wake` ->
//                                             woken, `signal` -> signalled, `report` -> ok ... | bad
//                                             N TEXT: what a target must never see (selfcheck.h).
// state       kind=NAME                       A process in a peculiar state that checks itself
//                                             (states.c). `report` as above.
// tree        pages=1024 shared=256 keep=2    arena=0x pages=N shared=0x shared_pages=N. Children
//             deep=0|1 churn=0 life_ms=40     that stay, that come and go, or that are born as fast as
//             storm=0|1 alarm=0|1             can be, and write without a pause (tree.c).
//
// detached=1 (stamp): the printed pid is that of a session leader whose parent is init, with
// /dev/null as stdin and stderr and `log` as stdout: what a plain `criu restore` can bring back. It
// checks itself on SIGUSR1, appends the answer to `log`, forks a child that does the same on SIGUSR2,
// and exits after `lifetime` seconds.
#include "workload.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static const struct {
  const char *name;
  int (*run)(const struct options *);
} modes[] = {
    {"stamp", run_stamp},   {"maps", run_maps},       {"threads", run_threads},
    {"execer", run_execer}, {"exiter", run_exiter},   {"leaderless", run_leaderless},
    {"idle", run_idle},     {"zombie", run_zombie},   {"uffd", run_uffd},
    {"seccomp", run_seccomp}, {"traced", run_traced}, {"elf32", run_elf32},
    {"pinned", run_pinned}, {"vfork", run_vfork},     {"hostile", run_hostile},
    {"parked", run_parked},   {"state", run_state},   {"shared", run_shared},
    {"tree", run_tree},
};

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: workload MODE [key=value...] (the modes are listed in main.c)\n");
    return 64;
  }
  if (argc == 3 && strcmp(argv[1], "treeleaf") == 0) return run_treeleaf(argv[2]);
  struct options options = {argc - 2, argv + 2};
  // The threads that start workloads may have signals blocked, which exec hands down.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  // A test that stopped reading must not leave a workload that cannot say so.
  signal(SIGPIPE, SIG_DFL);
  if (option_number(&options, "detached", 0)) {
    detach(&options);
  } else if (option_number(&options, "pdeathsig", 1)) {
    pid_t parent = getppid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) return 0;  // it ended before the request was in place
  }
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
    if (strcmp(argv[1], modes[i].name) == 0) return modes[i].run(&options);
  fprintf(stderr, "workload: no mode '%s'\n", argv[1]);
  return 64;
}
