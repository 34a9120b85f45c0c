// Known values in every register, and a look at whether they stay: see states.h.
#include "states.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/// What the assembly below loads and stores: 16 vectors of 32 bytes, then general registers.
struct register_file {
  unsigned char vectors[16][32];
  uint64_t general[13];  // rbx rcx rdx rsi rdi r8..r13 r14 r15, as listed below
  uint64_t red_zone[2];
  uint64_t result;  // of the call, or whether the direction flag was lost
} __attribute__((aligned(32)));

#define EACH_VECTOR(op) \
  op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) \
      op(15)
#define LOAD_VECTOR(n) "vmovdqu " #n "*32(%%rax), %%ymm" #n "\n"
#define STORE_VECTOR(n) "vmovdqu %%ymm" #n ", " #n "*32(%%rax)\n"

static void make_values(struct register_file *file, uint64_t seed) {
  uint64_t state = seed;
  for (size_t i = 0; i < sizeof file->vectors / 8; i++) {
    uint64_t value = next_random(&state);
    memcpy((char *)file->vectors + 8 * i, &value, 8);
  }
  for (int i = 0; i < 13; i++) file->general[i] = next_random(&state);
}

// rax holds the register file throughout; rbp and rsp keep what the compiler needs.
#define LOAD_ALL                                                                              \
  EACH_VECTOR(LOAD_VECTOR)                                                                    \
  "mov 512(%%rax),%%rbx\n mov 520(%%rax),%%rcx\n mov 528(%%rax),%%rdx\n mov 536(%%rax),%%rsi\n" \
  "mov 544(%%rax),%%rdi\n mov 552(%%rax),%%r8\n mov 560(%%rax),%%r9\n mov 568(%%rax),%%r10\n"   \
  "mov 576(%%rax),%%r11\n mov 584(%%rax),%%r12\n mov 592(%%rax),%%r13\n mov 600(%%rax),%%r14\n" \
  "mov 608(%%rax),%%r15\n"
#define STORE_ALL                                                                             \
  EACH_VECTOR(STORE_VECTOR)                                                                   \
  "mov %%rbx,512(%%rax)\n mov %%rcx,520(%%rax)\n mov %%rdx,528(%%rax)\n mov %%rsi,536(%%rax)\n" \
  "mov %%rdi,544(%%rax)\n mov %%r8,552(%%rax)\n mov %%r9,560(%%rax)\n mov %%r10,568(%%rax)\n"   \
  "mov %%r11,576(%%rax)\n mov %%r12,584(%%rax)\n mov %%r13,592(%%rax)\n mov %%r14,600(%%rax)\n" \
  "mov %%r15,608(%%rax)\n"
#define ALL_CLOBBERS                                                                             \
  "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", \
      "memory", "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9",  \
      "ymm10", "ymm11", "ymm12", "ymm13", "ymm14", "ymm15"

/// Loads `file`, spins for a while with all of it in registers, and stores what is there then.
/// The loop counts in the red zone, below the stack pointer.
__attribute__((noinline, target("avx"))) static void spin_with(struct register_file *file) {
  __asm__ volatile(
      // Out of the compiler's red zone first: this block has one of its own.
      "lea -256(%%rsp), %%rsp\n" LOAD_ALL
      "movq %%rbx, -120(%%rsp)\n"
      "movq %%r15, -64(%%rsp)\n"
      "movq $200000, -8(%%rsp)\n"
      "std\n"
      "1: decq -8(%%rsp)\n"
      "jnz 1b\n"
      "pushfq\n"
      "popq %%r15\n"
      "cld\n"
      // pushfq wrote where the counter was; the other two slots are untouched.
      "bt $10, %%r15\n"
      "setnc 632(%%rax)\n"
      "movq -120(%%rsp), %%r15\n movq %%r15, 616(%%rax)\n"
      "movq -64(%%rsp), %%r15\n movq %%r15, 624(%%rax)\n" STORE_ALL
      "lea 256(%%rsp), %%rsp\n"
      :
      : "a"(file)
      : ALL_CLOBBERS);
}

static void compare(const struct register_file *before, const struct register_file *after,
                    bool calls) {
  if (memcmp(before->vectors, after->vectors, sizeof before->vectors)) {
    for (int i = 0; i < 16; i++)
      if (memcmp(before->vectors[i], after->vectors[i], 32)) {
        anomaly("ymm%d changed", i);
        break;
      }
  }
  static const char *const names[] = {"rbx", "rcx", "rdx", "rsi", "rdi", "r8",  "r9",
                                      "r10", "r11", "r12", "r13", "r14", "r15"};
  for (int i = 0; i < 13; i++) {
    // syscall itself overwrites rcx and r11; the spin uses r15 at its end.
    if (calls ? (i == 1 || i == 8) : i == 12) continue;
    if (before->general[i] != after->general[i])
      anomaly("%s changed: %lx, was %lx", names[i], after->general[i], before->general[i]);
  }
}

_Static_assert(offsetof(struct register_file, general) == 512, "the assembly knows the offsets");
_Static_assert(offsetof(struct register_file, result) == 632, "the assembly knows the offsets");

void spin_checking_registers(void) {
  static _Thread_local struct register_file before, after;
  for (uint64_t seed = 1;; seed++) {
    make_values(&before, seed);
    after = before;
    after.red_zone[0] = after.red_zone[1] = 0;
    after.result = 0;
    spin_with(&after);
    compare(&before, &after, false);
    if (after.red_zone[0] != before.general[0] || after.red_zone[1] != before.general[12])
      anomaly("the red zone changed");
    if (after.result & 0xff) anomaly("the direction flag changed");
    atomic_fetch_add(&ticks, 1);
  }
}

/// clock_nanosleep(CLOCK_MONOTONIC, 0, time, NULL) with known values everywhere else.
__attribute__((noinline, target("avx"))) static long sleep_with(struct register_file *file) {
  long result;
  __asm__ volatile(
      "lea -256(%%rsp), %%rsp\n"
      "push %%rax\n" LOAD_ALL
      "mov $230, %%eax\n"
      "syscall\n"
      "mov %%rax, %%rcx\n"
      "pop %%rax\n"
      "mov %%rcx, 632(%%rax)\n" STORE_ALL
      "mov 632(%%rax), %%rax\n"
      "lea 256(%%rsp), %%rsp\n"
      : "=a"(result)
      : "a"(file)
      : ALL_CLOBBERS);
  return result;
}

void call_checking_registers(void) {
  static struct register_file before, after;
  static const struct timespec time = {0, 2000000};
  for (uint64_t seed = 1;; seed++) {
    make_values(&before, seed);
    before.general[4] = 1;                                // rdi: CLOCK_MONOTONIC
    before.general[3] = 0;                                // rsi: relative
    before.general[2] = (uint64_t)(uintptr_t)&time;       // rdx
    before.general[7] = 0;                                // r10
    after = before;
    uint64_t began = monotonic_ns();
    long result = sleep_with(&after);
    if (result != 0) anomaly("clock_nanosleep: %ld", result);
    if (monotonic_ns() - began < 2000000) anomaly("clock_nanosleep: early");
    compare(&before, &after, true);
    atomic_fetch_add(&ticks, 1);
  }
}

// MARK: A small stack

static void on_small_stack(void) { spin_checking_registers(); }

unsigned char *small_stack;
size_t small_stack_bytes;

void prepare_small_stack(size_t bytes) {
  size_t whole = bytes + 2 * SMALL_STACK_CANARY;
  small_stack = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (small_stack == MAP_FAILED) die("mmap");
  memset(small_stack, 0xc5, whole);
  small_stack_bytes = bytes;
}

void spin_on_stack(uint64_t top) {
  __asm__ volatile(
      "mov %0, %%rsp\n"
      "xor %%ebp, %%ebp\n"
      "call *%1\n"
      :
      : "r"(top), "r"(on_small_stack)
      : "memory");
  __builtin_unreachable();
}

void warm_comparison(void) {
  static struct register_file warm;
  make_values(&warm, 1);
  compare(&warm, &warm, false);
}

void spin_on_small_stack(void) {
  // Once outside: the first call of a library function takes kilobytes of stack to find it.
  warm_comparison();
  // Nothing below: who stores there fails. (The canaries are the parent's to watch.)
  munmap(small_stack, SMALL_STACK_CANARY);
  spin_on_stack(((uintptr_t)small_stack + SMALL_STACK_CANARY + small_stack_bytes) & ~63ul);
}

// MARK: Restartable sequences

static struct rseq *own_rseq(void) {
  return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

static atomic_ulong aborts;

void loop_restartable_sequences(void) {
  if (__rseq_size == 0) die("no rseq");
  struct rseq *rseq = own_rseq();
  static struct rseq_cs sequence __attribute__((aligned(32)));
  for (;;) {
    uint64_t protected_by = 1, aborted = 0;
    __asm__ volatile(
        "lea 1f(%%rip), %%rax\n"
        "mov %%rax, 8(%[cs])\n"
        "lea 2f(%%rip), %%rdx\n"
        "sub %%rax, %%rdx\n"
        "mov %%rdx, 16(%[cs])\n"
        "lea 4f(%%rip), %%rax\n"
        "mov %%rax, 24(%[cs])\n"
        "mov $100000, %%ecx\n"
        "mov %[cs], 8(%[rseq])\n"
        "1:\n"
        "dec %%ecx\n"
        "jnz 1b\n"
        // Still in the sequence: a thread that was disturbed without an abort has lost its
        // protection, and would go on to commit.
        "mov 8(%[rseq]), %[protected_by]\n"
        "2:\n"
        "jmp 5f\n"
        ".long 0x53053053\n"  // RSEQ_SIG
        "4:\n"
        "mov $1, %[aborted]\n"
        "5:\n"
        "movq $0, 8(%[rseq])\n"
        : [protected_by] "+&r"(protected_by), [aborted] "+&r"(aborted)
        : [cs] "r"(&sequence), [rseq] "r"(rseq)
        : "rax", "rcx", "rdx", "cc", "memory");
    if (aborted)
      atomic_fetch_add(&aborts, 1);
    else if (protected_by == 0)
      anomaly("a restartable sequence lost its protection and went on");
    // Outside as long as inside, so that a thread is not always in one.
    for (volatile int i = 0; i < 50000; i++) {
    }
    atomic_fetch_add(&ticks, 1);
  }
}

// MARK: Single steps

static volatile sig_atomic_t traps;

static void count_trap(int signal, siginfo_t *info, void *context) {
  (void)signal;
  (void)context;
  traps = traps + 1;
  if (info->si_code != TRAP_TRACE) anomaly("SIGTRAP with code %d", info->si_code);
}

/// Runs 12 additions and a system call with the trap flag set; what they make of `value`.
__attribute__((noinline)) static uint64_t step_through(uint64_t value) {
  uint64_t pid;
  __asm__ volatile(
      "lea -256(%%rsp), %%rsp\n"
      "pushfq\n"
      "orq $0x100, (%%rsp)\n"
      "popfq\n"
      "add $1, %[value]\n add $2, %[value]\n add $3, %[value]\n add $4, %[value]\n"
      "add $5, %[value]\n add $6, %[value]\n"
      "mov $39, %%eax\n"  // getpid
      "syscall\n"
      "add $7, %[value]\n add $8, %[value]\n add $9, %[value]\n add $10, %[value]\n"
      "add $11, %[value]\n add $12, %[value]\n"
      "pushfq\n"
      "andq $~0x100, (%%rsp)\n"
      "popfq\n"
      "lea 256(%%rsp), %%rsp\n"
      : [value] "+&r"(value), "=&a"(pid)
      :
      : "rcx", "r11", "cc", "memory");
  if (pid != (uint64_t)getpid()) anomaly("getpid: %lu", pid);
  return value;
}

void step_itself(void) {
  struct sigaction action = {.sa_sigaction = count_trap, .sa_flags = SA_SIGINFO};
  sigaction(SIGTRAP, &action, NULL);
  traps = 0;
  step_through(0);
  // What this processor and this kernel make of it: one for each instruction, more or less.
  int expected = traps;
  if (expected < 15) anomaly("%d traps", expected);
  for (uint64_t turn = 0;; turn++) {
    traps = 0;
    if (step_through(turn) != turn + 78) anomaly("a sum changed");
    if (traps != expected) anomaly("%d traps, not %d", (int)traps, expected);
    atomic_fetch_add(&ticks, 1);
  }
}
