// XXH3 as fast as this processor can: libxxhash as it is packaged knows SSE2 alone, which digests at
// half the speed of AVX2. (Its own dispatcher takes AVX-512 where there is any, which was measured to
// slow down everything else on the core.)
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cdigest_128 {
  uint64_t low, high;
};

/// A digest of bytes that come piece by piece.
struct cdigest_state;

uint64_t cdigest_64(const void *bytes, size_t count);
struct cdigest_128 cdigest_128(const void *bytes, size_t count);

/// NULL without memory.
struct cdigest_state *cdigest_create(void);
void cdigest_free(struct cdigest_state *state);
void cdigest_add(struct cdigest_state *state, const void *bytes, size_t count);
struct cdigest_128 cdigest_value(const struct cdigest_state *state);

/// One way to do all of the above.
struct cdigest_implementation {
  uint64_t (*digest_64)(const void *bytes, size_t count);
  struct cdigest_128 (*digest_128)(const void *bytes, size_t count);
  void *(*create)(void);
  void (*free)(void *state);
  void (*add)(void *state, const void *bytes, size_t count);
  struct cdigest_128 (*value)(const void *state);
};

/// libxxhash.
extern const struct cdigest_implementation cdigest_portable;
#if defined(__x86_64__)
/// The same, compiled for AVX2.
extern const struct cdigest_implementation cdigest_avx2;
#endif

/// Whether this processor has AVX2.
bool cdigest_has_avx2(void);
