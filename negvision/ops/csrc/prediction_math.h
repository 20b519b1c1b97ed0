// The arithmetic of assignments that look at predictions, for CPU and CUDA: what a pair of a prior and
// a box is worth under each rule, and how pairs rank.
#pragma once

#include "atss_math.h"

namespace negvision {

// kTaskAligned: TOOD (Feng et al., ICCV 2021): the best of all priors, then those inside the box.
// kContained: its form in YOLO detectors: the best of the priors inside the box, by CIoU.
// kSimOta: YOLOX (Ge et al., 2021). kSoftLabel: RTMDet (Lyu et al., 2022).
enum class PredictionRule : int64_t {
  kTaskAligned = 0,
  kContained = 1,
  kSimOta = 2,
  kSoftLabel = 3
};

NV_HD bool has_dynamic_k(PredictionRule rule) {
  return rule == PredictionRule::kSimOta || rule == PredictionRule::kSoftLabel;
}

// In a double, which absorbs the difference between devices in log, exp and pow; whole and half
// exponents are exact products.
NV_HD double power(double base, double exponent) {
  const int whole = exponent <= 16 ? int(exponent) : 0;
  if (exponent != whole && exponent != whole + 0.5) return pow(base, exponent);
  double result = 1;
  for (int i = 0; i < whole; ++i) result = mul_rn(result, base);
  return exponent == whole ? result : mul_rn(result, sqrt_rn(base));
}

// One integer orders pairs: those of the first class, then by lower value, then by lower index.
constexpr uint64_t kNever = ~uint64_t(0);
NV_HD uint64_t rank_key(bool second_class, float value, int64_t index) {
  const uint32_t bits = bits_of(value);
  const uint32_t sortable = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t(second_class) << 63 | uint64_t(sortable) << 31 | uint64_t(index);
}
NV_HD int64_t rank_index(uint64_t key) { return int64_t(key & 0x7fffffffu); }
NV_HD float rank_value(uint64_t key) {
  const uint32_t sortable = uint32_t(key >> 31);
  return float_of(sortable & 0x80000000u ? sortable ^ 0x80000000u : ~sortable);
}

// The lowest keys so far, in order.
struct Ranking {
  uint64_t* keys;
  int capacity;
  int count;

  NV_HD uint64_t worst() const { return count == capacity ? keys[count - 1] : kNever; }
  NV_HD void offer(uint64_t key) {
    if (key >= worst()) return;
    int at = count < capacity ? count++ : capacity - 1;
    for (; at > 0 && keys[at - 1] > key; --at) keys[at] = keys[at - 1];
    keys[at] = key;
  }
};

constexpr double kIouFloor = 1e-7;                     // in logarithms, as in the authors' code
constexpr double kCostOfNone = 16.118095650958319788;  // -log(kIouFloor)
constexpr double kLowestLog = -100;

// A box that is to be assigned.
struct Target {
  const float* box;
  Point center;
  int64_t label;
};

// The priors of one image and what the network predicts there. `weights`: alpha and beta, or the
// weights of classification and overlap and the radius of the center, in strides.
struct PredictionPairs {
  PredictionRule rule;
  const float* priors;  // boxes; (x, y, stride, stride) for rules with a dynamic k
  const float* boxes;
  const float* scores;       // probabilities, or logits for kSoftLabel
  const float* class_costs;  // of a prior that has no object; for rules with a dynamic k
  int64_t num_classes;
  double weights[3];
  Similarity similarity;  // IoU for other rules than kTaskAligned

  NV_HD Point location(int64_t prior) const {
    if (has_dynamic_k(rule)) return {priors[4 * prior], priors[4 * prior + 1]};
    return center(priors, prior);
  }

  NV_HD bool is_inside(int64_t prior, const float* box) const {
    const float margin = rule == PredictionRule::kTaskAligned ? kCenterMargin
        : rule == PredictionRule::kContained                  ? 1e-9f
                                                              : 0.0f;
    return lies_inside(location(prior), load_box(box, 0), margin);
  }

  NV_HD bool is_central(int64_t prior, Point target) const {
    const float* p = priors + 4 * prior;
    const float x = mul_rn(float(weights[2]), p[2]), y = mul_rn(float(weights[2]), p[3]);
    return sub_rn(p[0], sub_rn(target.x, x)) > 0 && sub_rn(add_rn(target.x, x), p[0]) > 0 &&
        sub_rn(p[1], sub_rn(target.y, y)) > 0 && sub_rn(add_rn(target.y, y), p[1]) > 0;
  }

  // Whether the prior can be positive for some box because of this one; rules with a dynamic k.
  NV_HD bool admits(int64_t prior, const Target& target) const {
    return is_inside(prior, target.box) ||
        (rule == PredictionRule::kSimOta && is_central(prior, target.center));
  }

  NV_HD float iou(int64_t prior, const float* box) const {
    return similarity(load_box(boxes, prior), load_box(box, 0));
  }
  // What is compared between boxes that want one prior, from the IoU.
  NV_HD float overlap_from(float iou, int64_t prior, const float* box) const {
    if (rule != PredictionRule::kContained || !(iou > 0)) return iou;
    const float complete =
        overlap(load_box(box, 0), load_box(boxes, prior), OverlapMode::kCIoU, kUnionFloor);
    return complete > 0 ? complete : 0.0f;
  }

  // The cost of an overlap alone, a lower bound of the full cost.
  NV_HD double overlap_cost(float iou) const {
    return weights[1] * (iou == 0 ? kCostOfNone : -log(double(iou) + kIouFloor));
  }

  // The cost of a pair without overlap is at least this, whatever the classes.
  NV_HD uint64_t lowest_apart(bool second) const {
    return rank_key(second, float(overlap_cost(0)), 0);
  }

  // The key of a pair without its index, or kNever: the pair is none, or no lower than `worst`.
  NV_HD uint64_t
  rank(int64_t prior, const Target& target, float measure, uint64_t worst, bool* is_bad) const {
    const float* score_of = scores + prior * num_classes + target.label;
    if (!has_dynamic_k(rule)) {
      if (!(measure > 0)) return kNever;
      const double aligned = power(double(measure), weights[1]);
      if (rank_key(false, -float(aligned), 0) > worst) return kNever;  // a score is at most 1
      const float score = *score_of;
      if (!(score >= 0 && score <= 1)) return *is_bad |= score == score, kNever;
      const float metric = float(mul_rn(power(double(score), weights[0]), aligned));
      return metric > 0 && is_finite(metric) ? rank_key(false, -metric, 0) : kNever;
    }
    double cost = overlap_cost(measure);
    const bool second = rule == PredictionRule::kSimOta &&
        !(is_inside(prior, target.box) && is_central(prior, target.center));
    if (rank_key(second, float(cost), 0) > worst) return kNever;
    const double s = *score_of;
    if (rule == PredictionRule::kSimOta) {
      if (!(s >= 0 && s <= 1)) return *is_bad |= s == s, kNever;
      const double without = max_of(log1p(-s), kLowestLog), with = max_of(log(s), kLowestLog);
      cost += weights[0] * max_of(double(class_costs[prior]) + without - with, 0.0);
    } else {
      const double share = 1 / (1 + exp(-s)), rest = log1p(exp(-fabs(s))), t = measure;
      const double hinge = s > 0 ? s : 0;
      cost += max_of(double(class_costs[prior]) - (hinge + rest) * share * share, 0.0) +
          (hinge - s * t + rest) * (t - share) * (t - share);
      const Point p = location(prior);
      const double x = double(p.x) - target.center.x, y = double(p.y) - target.center.y;
      cost += pow(10.0, sqrt(x * x + y * y) / priors[4 * prior + 2] - weights[2]);
    }
    const float value = float(cost);
    return is_finite(value) ? rank_key(second, value, 0) : kNever;
  }
};

// The boxes of a batch.
struct Targets {
  const float* boxes;
  const float* centers;  // or null: the middles
  const int64_t* labels;
  int64_t num_classes;

  // Whether box i can claim priors.
  NV_HD bool is_proper(int64_t i) const {
    return negvision::is_proper(boxes + 4 * i) && labels[i] >= 0 && labels[i] < num_classes;
  }
  NV_HD Target operator[](int64_t i) const {
    const Point middle = centers ? Point{centers[2 * i], centers[2 * i + 1]} : center(boxes, i);
    return {boxes + 4 * i, middle, labels[i]};
  }
};

// The box of a prior that several claim: the one it ranks highest with, whether or not that box claims
// it.
struct Contest {
  const PredictionPairs& pairs;
  const Targets& targets;
  int64_t prior;
  int64_t begin;  // of the image's boxes
  uint64_t lowest;

  NV_HD void consider(int64_t g) {
    if (!targets.is_proper(begin + g)) return;
    const Target target = targets[begin + g];
    uint64_t key = kNever;
    if (has_dynamic_k(pairs.rule)) {
      bool is_bad = false;
      key = pairs.rank(prior, target, pairs.iou(prior, target.box), lowest, &is_bad);
    } else if (pairs.is_inside(prior, target.box)) {
      const float iou = pairs.iou(prior, target.box);
      if (lowest != kNever && iou < -rank_value(lowest)) return;  // CIoU is no more than IoU
      key = rank_key(false, -pairs.overlap_from(iou, prior, target.box), 0);
    }
    if (key != kNever) lowest = min_of(lowest, key | uint64_t(g));
  }
  NV_HD int64_t winner() const { return rank_index(lowest); }
};

struct Settled {
  int64_t box;  // in its image
  float overlap, metric;
};

NV_HD Settled settled(
    const PredictionPairs& pairs, const Targets& targets, int64_t prior, int64_t begin,
    int64_t box) {
  bool is_bad = false;
  const Target target = targets[begin + box];
  const float iou = pairs.iou(prior, target.box);
  const float measure = pairs.overlap_from(iou, prior, target.box);
  const uint64_t key = pairs.rank(prior, target, measure, kNever, &is_bad);
  const float value = key == kNever ? 0.0f : rank_value(key);
  return {box, measure, has_dynamic_k(pairs.rule) ? value : -value};
}

// The number of priors of a box: the sum of its best overlaps, rounded down, at least 1.
NV_HD int dynamic_k(double sum) { return sum < 1 ? 1 : int(sum); }

}  // namespace negvision
