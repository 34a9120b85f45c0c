// The states of mode `state`.
#ifndef STATES_H
#define STATES_H

#include "selfcheck.h"

#include <signal.h>

/// Spins with known values in all general registers, the vector registers, the flags and the red
/// zone, and looks at them again and again; on the stack that it is called on. Never returns.
__attribute__((noreturn)) void spin_checking_registers(void);
/// Sleeps in short system calls with known values in all registers that a call preserves.
__attribute__((noreturn)) void call_checking_registers(void);
/// Makes a stack of `bytes` bytes between canaries, in memory that children share.
void prepare_small_stack(size_t bytes);
/// The same as spin_checking_registers, on a stack whose last byte is before the address `top`.
__attribute__((noreturn)) void spin_on_stack(uint64_t top);
/// Has library functions found that would take kilobytes of such a stack when they are called first.
void warm_comparison(void);
/// The same as spin_checking_registers, on the small stack.
__attribute__((noreturn)) void spin_on_small_stack(void);
extern unsigned char *small_stack;
extern size_t small_stack_bytes;
enum { SMALL_STACK_CANARY = 16 << 10 };
/// Steps itself through a few instructions again and again (TF), and counts the SIGTRAPs.
__attribute__((noreturn)) void step_itself(void);
/// Runs restartable sequences (rseq(2)) that spin, and looks whether they are still protected.
__attribute__((noreturn)) void loop_restartable_sequences(void);

/// Answers reports, and what `other` knows (bool (*)(const char *command)), until stdin closes.
void *serve_state(void *other);
/// Goes on in a child that has this thread only, so that nobody can choose another one, and answers
/// for it from this process.
void announce_state(void);
/// Handles SIGUSR2 by spinning and looking at its surroundings. The lowest page of `alternate_memory`
/// must stay as it is: 0x5a.
void spin_in_handler(int signal, siginfo_t *info, void *context);
enum { ALTERNATE_BYTES = 65536 + 4096 };
extern unsigned char alternate_memory[ALTERNATE_BYTES];
/// Waits for ever, and must not notice.
void *wait_in_epoll(void *unused);

void run_second(void);
void run_sharedstack(void);
void run_deepening(void);
void run_altstacks(void);

#endif
