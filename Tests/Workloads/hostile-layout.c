// Mode `hostile`: operations that change where memory is and how it is protected.
#include "hostile.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define FRESH (PAGE_MAPPED | PAGE_READABLE | PAGE_WRITABLE | PAGE_ANONYMOUS)

static char *address(struct hostile *h, size_t page) { return h->play + page * PAGE; }

static void set_state(struct hostile *h, struct span span, unsigned char state) {
  memset(h->state + span.first, state, span.count);
}

static void map_fresh(struct hostile *h, struct span span) {
  void *wanted = address(h, span.first);
  if (mmap(wanted, span.count * PAGE, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != wanted)
    die("mmap in the playground");
  set_state(h, span, FRESH);
}

static bool all_have(struct hostile *h, struct span span, unsigned char wanted) {
  for (size_t i = 0; i < span.count; i++)
    if ((h->state[span.first + i] & wanted) != wanted) return false;
  return true;
}

void op_unmap(struct hostile *h) {
  struct span span = hostile_span(h, 16);
  if (munmap(address(h, span.first), span.count * PAGE)) die("munmap");
  set_state(h, span, 0);
}

void op_map_again(struct hostile *h) {
  struct span span = hostile_span(h, 32);
  uint64_t how = hostile_below(h, 4);
  // With or without a moment in which nothing is there, written or left a hole.
  if (how & 1) munmap(address(h, span.first), span.count * PAGE);
  map_fresh(h, span);
  if (how & 2) hostile_stamp(h, address(h, span.first), span.count * PAGE);
}

void op_map_file(struct hostile *h) {
  struct span span = hostile_span(h, 16);
  off_t offset = (off_t)hostile_below(h, OBJECT_PAGES - span.count + 1) * PAGE;
  if (mmap(address(h, span.first), span.count * PAGE, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_FIXED, h->file, offset) == MAP_FAILED)
    die("mmap of the file");
  set_state(h, span, PAGE_MAPPED | PAGE_READABLE | PAGE_WRITABLE);
  if (hostile_below(h, 2)) hostile_stamp(h, address(h, span.first), PAGE);
}

void op_map_object(struct hostile *h) {
  struct span span = hostile_span(h, 8);
  const struct object *object = &h->objects[hostile_below(h, 2)];
  off_t offset = (off_t)hostile_below(h, OBJECT_PAGES - span.count + 1) * PAGE;
  int flags = hostile_below(h, 4) ? MAP_SHARED : MAP_PRIVATE;
  if (mmap(address(h, span.first), span.count * PAGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED,
           object->fd, offset) == MAP_FAILED)
    die("mmap of %s", object->name);
  set_state(h, span,
            PAGE_MAPPED | PAGE_READABLE | PAGE_WRITABLE | (flags == MAP_SHARED ? PAGE_SHARED : 0));
}

/// Two spans of the same length that do not overlap; false if chance gave none.
static bool two_spans(struct hostile *h, size_t most, struct span *from, struct span *to) {
  *from = hostile_span(h, most);
  *to = (struct span){hostile_below(h, PLAY_PAGES), from->count};
  if (to->first + to->count > PLAY_PAGES) return false;
  return to->first + to->count <= from->first || from->first + from->count <= to->first;
}

/// Moves a span over another one. A move that fails, as it does (EFAULT) where the source spans
/// several mappings of which one is tracked, has unmapped the destination, and may have moved a
/// part: both are made anew then.
static bool move(struct hostile *h, struct span from, struct span to, int flags) {
  void *moved = mremap(address(h, from.first), from.count * PAGE, to.count * PAGE,
                       MREMAP_MAYMOVE | MREMAP_FIXED | flags, address(h, to.first));
  if (moved == MAP_FAILED) {
    map_fresh(h, from);
    map_fresh(h, to);
    hostile_stamp(h, address(h, to.first), to.count * PAGE);
    return false;
  }
  memcpy(h->state + to.first, h->state + from.first, from.count);
  return true;
}

void op_move(struct hostile *h) {
  struct span from, to;
  if (!two_spans(h, 24, &from, &to) || !all_have(h, from, PAGE_MAPPED)) return;
  if (!move(h, from, to, 0)) return;
  set_state(h, from, 0);
  // Most moves leave something else behind, some a hole.
  if (hostile_below(h, 4)) map_fresh(h, from);
}

void op_move_away(struct hostile *h) {
  struct span from, to;
  if (!two_spans(h, 24, &from, &to) || !all_have(h, from, FRESH)) return;
  // Takes the pages and leaves the mapping, empty.
  if (move(h, from, to, MREMAP_DONTUNMAP))
    for (size_t i = 0; i < from.count; i++) h->state[from.first + i] &= (unsigned char)~PAGE_GUARDED;
}

void op_grow(struct hostile *h) {
  struct span span = hostile_span(h, 16);
  size_t more = 1 + hostile_below(h, 16);
  if (span.first + span.count + more > PLAY_PAGES || !all_have(h, span, PAGE_MAPPED)) return;
  struct span tail = {span.first + span.count, more};
  munmap(address(h, tail.first), tail.count * PAGE);
  set_state(h, tail, 0);
  // In place: the new pages belong to the same mapping, whatever that is. A file's end is no place
  // to grow to.
  if (!all_have(h, span, PAGE_ANONYMOUS)) return;
  if (mremap(address(h, span.first), span.count * PAGE, (span.count + more) * PAGE, 0) == MAP_FAILED)
    return;
  unsigned char last = h->state[tail.first - 1] & (unsigned char)~PAGE_GUARDED;
  set_state(h, tail, last);
}

void op_swap(struct hostile *h) {
  size_t a = hostile_below(h, PLAY_PAGES), b = hostile_below(h, PLAY_PAGES);
  if (a == b || !(h->state[a] & PAGE_MAPPED) || !(h->state[b] & PAGE_MAPPED)) return;
  int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
  char *third = h->third_place;
  if (mremap(address(h, a), PAGE, PAGE, flags, third) == MAP_FAILED) return;
  unsigned char state = h->state[a];
  h->state[a] = 0;
  if (mremap(address(h, b), PAGE, PAGE, flags, address(h, a)) == MAP_FAILED) die("mremap");
  h->state[a] = h->state[b];
  if (mremap(third, PAGE, PAGE, flags, address(h, b)) == MAP_FAILED) die("mremap");
  hostile_reserve(third, 1);
  h->state[b] = state;
}

/// Memory that comes back to where it was joins its neighbours again. If it was tracked where it came
/// from, they are no longer tracked then, though their pages stay protected: the most hidden way in
/// which a write gets lost.
void op_travel(struct hostile *h) {
  char *middle = h->home + HOME_PAGES * PAGE;
  char *from = h->travels ? h->inn : middle, *to = h->travels ? middle : h->inn;
  size_t bytes = HOME_PAGES * PAGE;
  if (mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED) {
    // Part of it is tracked, part not: it starts anew.
    if (mmap(to, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
        to)
      die("mmap");
  }
  hostile_reserve(from, HOME_PAGES);
  h->travels = !h->travels;
}

void op_home_store(struct hostile *h) {
  size_t page = hostile_below(h, 3 * HOME_PAGES);
  bool away = h->travels && page / HOME_PAGES == 1;
  hostile_stamp(h, away ? h->inn + (page - HOME_PAGES) * PAGE : h->home + page * PAGE, PAGE);
}

static void protect(struct hostile *h, struct span span, int protection) {
  unsigned char access = (protection & PROT_READ ? PAGE_READABLE : 0) |
                         (protection & PROT_WRITE ? PAGE_WRITABLE : 0);
  for (size_t i = span.first; i < span.first + span.count; i++) {
    if (!(h->state[i] & PAGE_MAPPED)) continue;
    if (mprotect(address(h, i), PAGE, protection)) die("mprotect");
    h->state[i] = (unsigned char)((h->state[i] & ~(PAGE_READABLE | PAGE_WRITABLE)) | access);
  }
}

void op_protect(struct hostile *h) {
  protect(h, hostile_span(h, 16), hostile_below(h, 2) ? PROT_READ : PROT_NONE);
}

void op_unprotect(struct hostile *h) { protect(h, hostile_span(h, 64), PROT_READ | PROT_WRITE); }

void op_break(struct hostile *h) {
  // Someone else's memory above ours: leave the break alone from then on.
  if (sbrk(0) != h->heap_top) return;
  size_t held = (size_t)(h->heap_top - h->heap_bottom);
  size_t bytes = hostile_below(h, 24 * PAGE);
  bool up = held < 16 * PAGE || (held < 64 * PAGE && hostile_below(h, 2));
  if (!up && bytes > held) bytes = held;
  if (sbrk(up ? (intptr_t)bytes : -(intptr_t)bytes) == (void *)-1) return;
  h->heap_top = up ? h->heap_top + bytes : h->heap_top - bytes;
}

/// Advice that only splits and joins mappings.
void op_advise_range(struct hostile *h) {
  static const int advice[] = {MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTFORK, MADV_DOFORK,
                               MADV_DONTDUMP, MADV_DODUMP,     MADV_RANDOM,   MADV_NORMAL};
  struct span span = hostile_span(h, 64);
  madvise(address(h, span.first), span.count * PAGE,
          advice[hostile_below(h, sizeof advice / sizeof *advice)]);
}
