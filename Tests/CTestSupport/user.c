#define _GNU_SOURCE
#include "ctestsupport.h"

#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int test_become_user(unsigned id) {
  // The bare calls: those of libc change every thread.
  if (syscall(SYS_setresgid, id, id, id)) return -errno;
  if (syscall(SYS_setresuid, id, id, id)) return -errno;
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[2];
  memset(none, 0, sizeof none);
  if (syscall(SYS_capset, &header, none)) return -errno;
  // A change of user makes the process undumpable, as a set-user-id program is.
  if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)) return -errno;
  return 0;
}
