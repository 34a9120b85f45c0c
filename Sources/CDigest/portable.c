#include "cdigest.h"
#include <xxhash.h>

#define IMPLEMENTATION cdigest_portable
#include "implementation.h"
