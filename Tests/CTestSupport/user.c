#define _GNU_SOURCE
#include "ctestsupport.h"

#include <errno.h>
#include <grp.h>
#include <sys/prctl.h>
#include <unistd.h>

int test_become_user(unsigned id) {
  if (setgroups(0, 0) || setresgid(id, id, id) || setresuid(id, id, id)) return -errno;
  // A change of user makes a process undumpable, and its /proc files root's; a program that was
  // started by that user is dumpable.
  if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)) return -errno;
  return 0;
}
