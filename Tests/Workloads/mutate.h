// An arena of private memory that is rearranged in every way a tracker must notice.
#ifndef MUTATE_H
#define MUTATE_H

#include "workload.h"

struct mutable_arena {
  char *start;
  uint64_t pages;
};

struct mutable_arena make_mutable_arena(uint64_t pages);
/// The same seed always does the same, unless tracking splits mappings that mremap then refuses.
void mutate(struct mutable_arena *arena, uint64_t seed, uint64_t operations);

#endif
