// The arithmetic of negative pairs for CPU and CUDA: which entries of a tile of similarities are
// negatives, their exponentials, and the sort order for quartiles.
#pragma once

#include "arithmetic.h"

namespace negvision {

// Row i and column j are a negative pair if their labels differ, j - i > diagonal (which takes each
// unordered pair once), and the similarity lies within the bounds.
struct Tile {
  int64_t rows, columns, diagonal;
  const int32_t* row_labels;
  const int32_t* column_labels;

  NV_HD int64_t first_column(int64_t row) const {
    const int64_t first = row + diagonal + 1;
    return first < 0 ? 0 : first > columns ? columns : first;
  }
};

// NaN lies within any bounds, so that it reaches the result instead of disappearing.
template <typename T>
struct Bounds {
  T low, high;
  NV_HD bool hold(T value) const { return !(value < low) & !(value > high); }
};

// exp(x) for x <= 0, within 2 units in the last place; subnormal results are 0. No branches or calls,
// so that it vectorizes: a power of two is split off, and a polynomial of degree 6 does the rest, the
// Taylor series on |r| <= ln(2) / 2 with the next term, r^7 / 5040, approximated by terms of r^5 and
// r^3 (Chebyshev economization).
NV_HD float exp_of_negative(float x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float clamped = x < -87.0f ? -87.0f : x;
  const float shifted = add_rn(mul_rn(clamped, 1.44269504f), magic);
  const float power = sub_rn(shifted, magic);
  // ln(2) in two parts; products with the first are exact.
  const float r =
      sub_rn(sub_rn(clamped, mul_rn(power, 0.693359375f)), mul_rn(power, -2.12194440e-4f));
  float p = add_rn(mul_rn(1.0f / 720, r), 1.0f / 120 + 4.1706e-5f);
  p = add_rn(mul_rn(p, r), 1.0f / 24);
  p = add_rn(mul_rn(p, r), 1.0f / 6 - 2.5047e-6f);
  p = add_rn(mul_rn(p, r), 0.5f);
  p = add_rn(mul_rn(p, r), 1.0f);
  p = add_rn(mul_rn(p, r), 1.0f);
  const uint32_t exponent = (bits_of(shifted) << 23) + 0x3f800000u;
  const float value = mul_rn(p, float_of(exponent));
  return x < -87.0f ? 0.0f : x != x ? x : value;
}
NV_HD double exp_of_negative(double x) { return exp(x); }

// Unsigned integers that sort like the values: NaN beyond the infinity of its sign, -0 before +0.
NV_HD uint64_t sortable(float value) {
  const uint32_t bits = bits_of(value);
  return bits & 0x80000000u ? uint32_t(~bits) : bits | 0x80000000u;
}
NV_HD uint64_t sortable(double value) {
  uint64_t bits;
#if defined(__CUDA_ARCH__)
  bits = uint64_t(__double_as_longlong(value));
#else
  __builtin_memcpy(&bits, &value, sizeof(bits));
#endif
  return bits >> 63 ? ~bits : bits | (uint64_t(1) << 63);
}

}  // namespace negvision
