// Functions compiled for every x86-64 processor and for those with AVX2; the loader picks one, so a
// binary serves all machines. Results are the same bits: no operation is contracted or reordered (see
// arithmetic.h).
#pragma once

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define NV_VECTORIZED __attribute__((target_clones("arch=x86-64-v3", "default")))
// Also with AVX-512, for loops that gain from it.
#define NV_VECTORIZED_WIDE \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NV_VECTORIZED
#define NV_VECTORIZED_WIDE
#endif
