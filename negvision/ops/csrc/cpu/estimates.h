// Bounds of what pairs of a prior and a box are worth, many at a time, by logarithms that are right to
// 2e-5: they rule out most pairs before prediction_math.h looks at them. Lower is better, in an order
// of their own: costs, or minus the logarithm of a metric.
#pragma once

#include <limits>

#include "../prediction_math.h"
#include "vectorize.h"

namespace negvision {

constexpr int kPairs = 32;
constexpr float kLn2 = 0.69314718f;
constexpr float kBoundless = std::numeric_limits<float>::infinity();

// Pairs of one box. Where the arithmetic is not certain, `lower` may be NaN or -inf, and `upper` is inf.
struct PairEstimates {
  int64_t prior[kPairs] = {};
  float overlap[kPairs] = {}, score[kPairs] = {}, class_cost[kPairs] = {};
  float x[kPairs] = {}, y[kPairs] = {}, step_x[kPairs] = {}, step_y[kPairs] = {};
  float lower[kPairs] = {}, upper[kPairs] = {};
  int32_t second[kPairs] = {};  // class of rank_key
};

// Off by at most 1.5e-5; too high below 2^-126.
inline float quick_log2(float x) {
  const uint32_t bits = bits_of(x);
  const float m = float_of((bits & 0x007fffffu) | 0x3f800000u) - 1.0f;
  const float of_m = 1.43909300e-05f +
      m *
          (1.44159208f +
           m * (-0.707253434f + m * (0.411561482f + m * (-0.189832447f + m * 0.0439286278f))));
  return float(int32_t(bits >> 23) - 127) + of_m;
}

// Off by at most 4e-6 of itself from 2^-126 to 2^126, and of these beyond.
inline float quick_exp2(float x) {
  const float raised = (x > -126.0f ? (x < 126.0f ? x : 126.0f) : -126.0f) + 127.0f;
  const int32_t whole = int32_t(raised);
  const float f = raised - float(whole);
  const float of_f =
      1.0000036f + f * (0.69296955f + f * (0.24162132f + f * (0.05171774f + f * 0.01368398f)));
  return of_f * float_of(uint32_t(whole) << 23);
}

[[maybe_unused]] NV_VECTORIZED_WIDE static void estimate_metrics(
    float alpha, float beta, PairEstimates& p) {
  for (int n = 0; n < kPairs; ++n) {
    const float s = p.score[n], t = p.overlap[n];
    const float value = -(alpha * quick_log2(s) + beta * quick_log2(t));
    const float error = 1e-6f + 1e-4f * (alpha + beta) + 1e-5f * std::fabs(value);
    const bool is_certain = (s >= 1e-30f) & (s <= 1) & (t >= 1e-30f) & (value < 140);
    const bool is_wrong = !((s >= 0) & (s <= 1));  // the exact arithmetic decides and reports
    p.lower[n] = is_wrong ? -kBoundless : value - error;
    p.upper[n] = is_certain ? value + error : kBoundless;
  }
}

[[maybe_unused]] NV_VECTORIZED_WIDE static void estimate_sim_ota(
    Box<float> gt, Point middle, float class_weight, float overlap_weight, float radius,
    PairEstimates& p) {
  for (int n = 0; n < kPairs; ++n) {
    const float x = p.x[n], y = p.y[n], rx = radius * p.step_x[n], ry = radius * p.step_y[n];
    const bool is_inside = (x - gt.x1 > 0) & (y - gt.y1 > 0) & (gt.x2 - x > 0) & (gt.y2 - y > 0);
    const bool is_central = (x - (middle.x - rx) > 0) & ((middle.x + rx) - x > 0) &
        (y - (middle.y - ry) > 0) & ((middle.y + ry) - y > 0);
    p.second[n] = !(is_inside & is_central);
    const float s = p.score[n];
    const float without = s < 1 ? kLn2 * quick_log2(1 - s) : -100.0f;
    const float with = s > 0 ? kLn2 * quick_log2(s) : -100.0f;
    const float rest = p.class_cost[n] + without - with;
    const float value = class_weight * (rest > 0 ? rest : 0.0f) -
        overlap_weight * kLn2 * quick_log2(p.overlap[n] + float(kIouFloor));
    const float error = 1e-4f * (class_weight + overlap_weight) + 1e-4f * std::fabs(value);
    const bool is_certain =
        (s >= 1e-30f) & (s <= 1) & (std::fabs(p.class_cost[n]) < 1e37f) & (value < 1e37f);
    const bool is_wrong = !((s >= 0) & (s <= 1));
    p.lower[n] = is_wrong ? -kBoundless : value - error;
    p.upper[n] = is_certain ? value + error : kBoundless;
  }
}

[[maybe_unused]] NV_VECTORIZED_WIDE static void estimate_soft_label(
    Point middle, float overlap_weight, float radius, PairEstimates& p) {
  constexpr float log2_e = 1.44269504f, log2_10 = 3.32192809f;
  for (int n = 0; n < kPairs; ++n) {
    const float s = p.score[n], t = p.overlap[n], size = std::fabs(s);
    const float e = quick_exp2(-size * log2_e);
    const float share = (s > 0 ? 1.0f : e) / (1 + e), rest = kLn2 * quick_log2(1 + e);
    const float hinge = s > 0 ? s : 0.0f, own = (hinge + rest) * share * share;
    const float others = p.class_cost[n] - own, off = t - share;
    const float dx = p.x[n] - middle.x, dy = p.y[n] - middle.y, step = p.step_x[n];
    const float exponent = log2_10 * (std::sqrt(dx * dx + dy * dy) / step - radius);
    const float apart = quick_exp2(exponent);
    const float overlap_cost = -overlap_weight * kLn2 * quick_log2(t + float(kIouFloor));
    const float value =
        overlap_cost + (others > 0 ? others : 0.0f) + (hinge - s * t + rest) * off * off + apart;
    const float reach =
        std::fabs(p.x[n]) + std::fabs(p.y[n]) + std::fabs(middle.x) + std::fabs(middle.y);
    const float error =
        1e-4f * (1 + overlap_weight + std::fabs(overlap_cost) + p.class_cost[n] + own) +
        1e-4f * (size + size * t + rest) * (std::fabs(off) + 1e-4f) +
        apart * (1e-4f + 1e-6f * std::fabs(exponent) + 1e-6f * reach / step);
    p.lower[n] = value - error;
    p.upper[n] = (value + error < 1e37f) & (exponent < 120) ? value + error : kBoundless;
  }
}

// Which lower bounds are not above the limit of their class.
[[maybe_unused]] NV_VECTORIZED_WIDE static uint32_t not_above(
    const PairEstimates& p, float first, float second) {
  uint32_t result = 0;
  for (int n = 0; n < kPairs; ++n) {
    const float limit = p.second[n] ? second : first;
    result |= p.lower[n] > limit ? 0 : uint32_t(1) << n;
  }
  return result;
}

inline void estimate(const PredictionPairs& pairs, const Target& target, PairEstimates& p) {
  const float a = float(pairs.weights[0]), b = float(pairs.weights[1]), r = float(pairs.weights[2]);
  if (!has_dynamic_k(pairs.rule)) {
    estimate_metrics(a, b, p);
  } else if (pairs.rule == PredictionRule::kSimOta) {
    estimate_sim_ota(load_box(target.box, 0), target.center, a, b, r, p);
  } else {
    estimate_soft_label(target.center, b, r, p);
  }
}

// No pair of this overlap or less has a lower bound of `value` or less: a score is at most 1, and other
// costs are at least 0. Rounded down.
inline float overlap_floor(const PredictionPairs& pairs, float value) {
  const float weight = float(pairs.weights[1]);
  if (!(weight > 0) || !(value < kBoundless)) return 0;
  const float lowest = has_dynamic_k(pairs.rule) ? std::exp(-value / weight) - float(kIouFloor)
                                                 : std::exp2(-value / weight);
  return std::max(lowest * (1 - 1e-4f) - 1e-8f, 0.0f);
}

}  // namespace negvision
