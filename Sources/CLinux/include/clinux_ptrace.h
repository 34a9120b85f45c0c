#ifndef CLINUX_PTRACE_H
#define CLINUX_PTRACE_H

#include <stddef.h>
#include <stdint.h>

/// struct user_regs_struct of x86-64, in the kernel's order.
struct clinux_registers {
  uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip;
  uint64_t cs, eflags, rsp, ss, fs_base, gs_base, ds, es, fs, gs;
};

/// struct ptrace_rseq_configuration.
struct clinux_rseq_configuration {
  uint64_t area;
  uint32_t byte_count;
  uint32_t signature;
  uint32_t flags;
  uint32_t padding;
};

int clinux_ptrace_seize(int tid, uint64_t options);
int clinux_ptrace_interrupt(int tid);
int clinux_ptrace_continue(int tid, int signal);
/// Runs to the next system call's entry or exit.
int clinux_ptrace_syscall(int tid, int signal);
int clinux_ptrace_detach(int tid, int signal);
int clinux_ptrace_get_registers(int tid, struct clinux_registers *out);
int clinux_ptrace_set_registers(int tid, const struct clinux_registers *registers);
/// NT_X86_XSTATE, as XSAVE lays it out. The number of bytes filled.
long clinux_ptrace_get_xstate(int tid, void *buffer, size_t capacity);
int clinux_ptrace_get_signal_mask(int tid, uint64_t *out);
int clinux_ptrace_set_signal_mask(int tid, uint64_t mask);
/// PTRACE_GET_RSEQ_CONFIGURATION; area 0 if the thread has no rseq.
int clinux_ptrace_get_rseq(int tid, struct clinux_rseq_configuration *out);
/// waitpid(tid, __WALL | WNOHANG): 0 if nothing happened yet, else tid with `status` filled.
int clinux_wait_poll(int tid, int *status);
/// waitpid(tid, __WALL).
int clinux_wait(int tid, int *status);

#endif
