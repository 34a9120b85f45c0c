// What both ways have in common: whoever includes this has included xxhash.h in its own way, and names
// the result.
static uint64_t digest_64(const void *bytes, size_t count) { return XXH3_64bits(bytes, count); }
static struct cdigest_128 digest_128(const void *bytes, size_t count) {
  XXH128_hash_t hash = XXH3_128bits(bytes, count);
  return (struct cdigest_128){hash.low64, hash.high64};
}
static void *create(void) {
  XXH3_state_t *state = XXH3_createState();
  if (state) XXH3_128bits_reset(state);
  return state;
}
static void destroy(void *state) { XXH3_freeState(state); }
static void add(void *state, const void *bytes, size_t count) {
  XXH3_128bits_update(state, bytes, count);
}
static struct cdigest_128 value(const void *state) {
  XXH128_hash_t hash = XXH3_128bits_digest(state);
  return (struct cdigest_128){hash.low64, hash.high64};
}
const struct cdigest_implementation IMPLEMENTATION = {digest_64, digest_128, create, destroy, add, value};
