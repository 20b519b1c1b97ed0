// Claims of boxes on priors: the highest key wins, whatever the order in which threads come.
#pragma once

#include <cstdint>

#include "vectorize.h"

namespace negvision {

// An atomic maximum; returns what was there before.
inline uint64_t raise_to(uint64_t* key, uint64_t claim) {
  uint64_t seen = __atomic_load_n(key, __ATOMIC_RELAXED);
  while (
      seen < claim &&
      !__atomic_compare_exchange_n(key, &seen, claim, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return seen;
}

// The first of `keys` at or after `i` that is not 0, or `last`. Few priors are claimed, so zeros are
// skipped in blocks.
[[maybe_unused]] NV_VECTORIZED static int64_t next_claim(
    const uint64_t* keys, int64_t i, int64_t last) {
  constexpr int64_t kBlock = 16;
  while (i + kBlock <= last) {
    uint64_t any = 0;
    for (int64_t k = 0; k < kBlock; ++k) any |= keys[i + k];
    if (any) break;
    i += kBlock;
  }
  while (i < last && keys[i] == 0) ++i;
  return i;
}

}  // namespace negvision
