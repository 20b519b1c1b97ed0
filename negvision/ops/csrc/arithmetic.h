// Arithmetic that rounds the same way on every device.
//
// A fused multiply-add rounds once where a multiplication and an addition round twice. That can move
// a distance by one unit in the last place and create or break a tie. The host is compiled with
// -ffp-contract=off; on the device the intrinsics below are never contracted.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define NV_HD __host__ __device__ __forceinline__
#else
#define NV_HD inline
#endif

namespace negvision {

#if defined(__CUDA_ARCH__)
NV_HD float add_rn(float a, float b) { return __fadd_rn(a, b); }
NV_HD float sub_rn(float a, float b) { return __fsub_rn(a, b); }
NV_HD float mul_rn(float a, float b) { return __fmul_rn(a, b); }
NV_HD float div_rn(float a, float b) { return __fdiv_rn(a, b); }
NV_HD double add_rn(double a, double b) { return __dadd_rn(a, b); }
NV_HD double sub_rn(double a, double b) { return __dsub_rn(a, b); }
NV_HD double mul_rn(double a, double b) { return __dmul_rn(a, b); }
NV_HD double div_rn(double a, double b) { return __ddiv_rn(a, b); }
NV_HD double sqrt_rn(double a) { return __dsqrt_rn(a); }
NV_HD uint32_t bits_of(float a) { return __float_as_uint(a); }
NV_HD float float_of(uint32_t bits) { return __uint_as_float(bits); }
#else
NV_HD float add_rn(float a, float b) { return a + b; }
NV_HD float sub_rn(float a, float b) { return a - b; }
NV_HD float mul_rn(float a, float b) { return a * b; }
NV_HD float div_rn(float a, float b) { return a / b; }
NV_HD double add_rn(double a, double b) { return a + b; }
NV_HD double sub_rn(double a, double b) { return a - b; }
NV_HD double mul_rn(double a, double b) { return a * b; }
NV_HD double div_rn(double a, double b) { return a / b; }
NV_HD double sqrt_rn(double a) { return std::sqrt(a); }
NV_HD uint32_t bits_of(float a) {
  uint32_t bits;
  __builtin_memcpy(&bits, &a, sizeof(bits));
  return bits;
}
NV_HD float float_of(uint32_t bits) {
  float a;
  __builtin_memcpy(&a, &bits, sizeof(a));
  return a;
}
#endif

// NaN if either is, like torch.maximum and torch.minimum. No ||: a branch would prevent vectorization.
template <typename T>
NV_HD T max_of(T a, T b) {
  return (a > b) | (a != a) ? a : b;
}
template <typename T>
NV_HD T min_of(T a, T b) {
  return (a < b) | (a != a) ? a : b;
}

// False for NaN and for both infinities.
NV_HD bool is_finite(float a) { return (bits_of(a) & 0x7f800000u) != 0x7f800000u; }

}  // namespace negvision
