// What the files of mode `hostile` share: the arenas, and what the mutator knows of each page.
#ifndef HOSTILE_H
#define HOSTILE_H

#include "workload.h"

/// Pages that are rearranged at will: the playground.
#define PLAY_PAGES 1024u
/// Pages of each shared object and of the file.
#define OBJECT_PAGES 64u
/// Pages that are only ever stored to, by threads of their own.
#define STEADY_PAGES 128u

/// A third of the pages of the home: those in its midst travel.
#define HOME_PAGES 16u

/// What the mutator knows of a page of the playground. A page that is not mapped has none of these.
enum page_state {
  PAGE_MAPPED = 1,
  PAGE_READABLE = 2,
  PAGE_WRITABLE = 4,
  /// Private anonymous memory: guards, collapse and the like are tried on no other.
  PAGE_ANONYMOUS = 8,
  PAGE_GUARDED = 16,
  PAGE_SHARED = 32,
};

/// A shared object, mapped as most programs do and once more.
struct object {
  const char *name;
  char *start;
  /// A second mapping of the same memory.
  char *twin;
  /// The object; -1 where it has no descriptor.
  int fd;
};

struct hostile {
  uint64_t random;
  /// Operations done: what a page is stamped with.
  volatile uint64_t operations;
  /// Operations after which the mutator calms down.
  uint64_t limit;
  uint64_t rate;
  char *play;
  unsigned char state[PLAY_PAGES];
  /// A page elsewhere, for swaps.
  char *third_place;
  char *steady;
  /// Memory whose middle third is now here, now at the inn.
  char *home, *inn;
  bool travels;
  struct object objects[4];
  /// A file on disk, and its private and shared mapping.
  int file;
  char *file_private, *file_shared;
  char *sparse;
  /// A huge page of the machine's pool; NULL if it has none to spare.
  char *huge;
  char *heap_bottom, *heap_top;
  bool remote_writes;
};

/// A run of pages of the playground.
struct span {
  size_t first, count;
};

/// Keeps a place free of what the kernel or the C library map by themselves.
void hostile_reserve(char *start, size_t pages);

/// Does one random operation.
void hostile_step(struct hostile *h);

/// Bytes that tell the operation that wrote them.
void hostile_stamp(struct hostile *h, void *start, size_t bytes);
uint64_t hostile_below(struct hostile *h, uint64_t limit);
struct span hostile_span(struct hostile *h, size_t most);

// hostile-layout.c: what changes where memory is and how it is protected.
void op_unmap(struct hostile *h);
void op_map_again(struct hostile *h);
void op_map_file(struct hostile *h);
void op_map_object(struct hostile *h);
void op_move(struct hostile *h);
void op_move_away(struct hostile *h);
void op_grow(struct hostile *h);
void op_swap(struct hostile *h);
void op_protect(struct hostile *h);
void op_unprotect(struct hostile *h);
void op_travel(struct hostile *h);
void op_home_store(struct hostile *h);
void op_break(struct hostile *h);
void op_advise_range(struct hostile *h);

// hostile-store.c: what changes bytes, by every road.
void op_store_byte(struct hostile *h);
void op_store_pages(struct hostile *h);
void op_store_same(struct hostile *h);
void op_store_either(struct hostile *h);
void op_read_pages(struct hostile *h);
void op_read_call(struct hostile *h);
void op_remote_write(struct hostile *h);
void op_drop(struct hostile *h);
void op_populate(struct hostile *h);
void op_collapse(struct hostile *h);
void op_guard(struct hostile *h);
void op_unguard(struct hostile *h);
void op_sparse(struct hostile *h);
void op_huge(struct hostile *h);
void op_stack(struct hostile *h);
void op_heap(struct hostile *h);

// hostile-shared.c: shared objects, files, processes and threads.
void op_object_store(struct hostile *h);
void op_object_pwrite(struct hostile *h);
void op_object_drop(struct hostile *h);
void op_object_resize(struct hostile *h);
void op_file_store(struct hostile *h);
void op_file_drop(struct hostile *h);
void op_file_pwrite(struct hostile *h);
void op_file_truncate(struct hostile *h);
void op_fork(struct hostile *h);
void op_child_store(struct hostile *h);
void op_exec(struct hostile *h);
void op_thread(struct hostile *h);

#endif
