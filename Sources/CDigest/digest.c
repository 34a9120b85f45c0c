#include "cdigest.h"

bool cdigest_has_avx2(void) {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2");
#else
  return false;
#endif
}

static const struct cdigest_implementation *fastest(void) {
#if defined(__x86_64__) && defined(__OPTIMIZE__)
  // Without the optimiser libxxhash, which was built with it, is faster by far.
  if (cdigest_has_avx2()) return &cdigest_avx2;
#endif
  return &cdigest_portable;
}

uint64_t cdigest_64(const void *bytes, size_t count) { return fastest()->digest_64(bytes, count); }
struct cdigest_128 cdigest_128(const void *bytes, size_t count) {
  return fastest()->digest_128(bytes, count);
}
struct cdigest_state *cdigest_create(void) { return fastest()->create(); }
void cdigest_free(struct cdigest_state *state) { fastest()->free(state); }
void cdigest_add(struct cdigest_state *state, const void *bytes, size_t count) {
  fastest()->add(state, bytes, count);
}
struct cdigest_128 cdigest_value(const struct cdigest_state *state) {
  return fastest()->value(state);
}
