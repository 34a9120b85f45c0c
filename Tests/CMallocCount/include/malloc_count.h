// Counts this program's allocations, to prove that inner loops make none.
#ifndef MALLOC_COUNT_H
#define MALLOC_COUNT_H

#include <stdint.h>

/// Allocations so far, of all threads: malloc, calloc, realloc and the aligned ones.
uint64_t malloc_count(void);

#endif
