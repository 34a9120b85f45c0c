// Allocates, keeps and drops memory in several threads; built with -fsanitize=address, which reserves
// 20 TiB of address space. Prints "ready" once its heap is in use; then, for each line of standard
// input, its steps so far. Ends with 1 if memory does not hold what was stored there.
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS 500

static atomic_ulong steps;

static void *churn(void *argument) {
  unsigned seed = *(unsigned *)argument;
  struct {
    unsigned char *bytes;
    size_t size;
  } kept[SLOTS] = {{0}};
  for (;;) {
    size_t slot = (size_t)rand_r(&seed) % SLOTS;
    for (size_t i = 0; i < kept[slot].size; i++)
      if (kept[slot].bytes[i] != (unsigned char)slot) {
        fprintf(stderr, "slot %zu holds %u\n", slot, kept[slot].bytes[i]);
        _exit(1);
      }
    free(kept[slot].bytes);
    kept[slot].size = 1 + (size_t)rand_r(&seed) % (32 << 10);
    kept[slot].bytes = malloc(kept[slot].size);
    memset(kept[slot].bytes, (int)slot, kept[slot].size);
    atomic_fetch_add(&steps, 1);
  }
  return NULL;
}

int main(void) {
  static unsigned seeds[2] = {1, 2};
  for (int i = 0; i < 2; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, churn, &seeds[i])) return 1;
  }
  while (atomic_load(&steps) < 5000) usleep(5000);
  puts("ready");
  fflush(stdout);
  char line[80];
  while (fgets(line, sizeof line, stdin)) {
    printf("%lu\n", atomic_load(&steps));
    fflush(stdout);
  }
  _exit(0);
}
