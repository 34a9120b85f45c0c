#define _GNU_SOURCE
#include "clinux_ptrace.h"

#include <errno.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

_Static_assert(sizeof(struct clinux_registers) == sizeof(struct user_regs_struct), "registers");
_Static_assert(offsetof(struct clinux_registers, rip) == offsetof(struct user_regs_struct, rip),
               "registers");
_Static_assert(sizeof(struct clinux_rseq_configuration) == 24, "struct ptrace_rseq_configuration");

// linux/ptrace.h, absent from older C libraries.
#define GET_SIGMASK 0x420a
#define SET_SIGMASK 0x420b
#define GET_RSEQ_CONFIGURATION 0x420f
#define NT_X86_XSTATE_ 0x202

static int request(int number, int tid, uintptr_t address, uintptr_t data) {
  long result = ptrace((enum __ptrace_request)number, tid, (void *)address, (void *)data);
  return result < 0 ? -errno : (int)result;
}

int clinux_ptrace_seize(int tid, uint64_t options) { return request(PTRACE_SEIZE, tid, 0, options); }
int clinux_ptrace_interrupt(int tid) { return request(PTRACE_INTERRUPT, tid, 0, 0); }
int clinux_ptrace_continue(int tid, int signal) {
  return request(PTRACE_CONT, tid, 0, (uintptr_t)signal);
}
int clinux_ptrace_syscall(int tid, int signal) {
  return request(PTRACE_SYSCALL, tid, 0, (uintptr_t)signal);
}
int clinux_ptrace_detach(int tid, int signal) {
  return request(PTRACE_DETACH, tid, 0, (uintptr_t)signal);
}
int clinux_ptrace_get_registers(int tid, struct clinux_registers *out) {
  return request(PTRACE_GETREGS, tid, 0, (uintptr_t)out);
}
int clinux_ptrace_set_registers(int tid, const struct clinux_registers *registers) {
  return request(PTRACE_SETREGS, tid, 0, (uintptr_t)registers);
}
long clinux_ptrace_get_xstate(int tid, void *buffer, size_t capacity) {
  struct iovec area = {buffer, capacity};
  int result = request(PTRACE_GETREGSET, tid, NT_X86_XSTATE_, (uintptr_t)&area);
  return result < 0 ? result : (long)area.iov_len;
}
int clinux_ptrace_get_signal_mask(int tid, uint64_t *out) {
  return request(GET_SIGMASK, tid, sizeof *out, (uintptr_t)out);
}
int clinux_ptrace_set_signal_mask(int tid, uint64_t mask) {
  return request(SET_SIGMASK, tid, sizeof mask, (uintptr_t)&mask);
}
int clinux_ptrace_get_rseq(int tid, struct clinux_rseq_configuration *out) {
  return request(GET_RSEQ_CONFIGURATION, tid, sizeof *out, (uintptr_t)out);
}
int clinux_wait_poll(int tid, int *status) {
  int result = waitpid(tid, status, __WALL | WNOHANG);
  return result < 0 ? -errno : result;
}
int clinux_wait(int tid, int *status) {
  int result = waitpid(tid, status, __WALL);
  return result < 0 ? -errno : result;
}
