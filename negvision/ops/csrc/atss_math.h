// The arithmetic of ATSS assignment (Zhang et al., CVPR 2020, section 3.2) for CPU and CUDA: distances,
// overlaps, their threshold, and the key that orders several claims on one prior. nearest_search.h
// selects the candidates.
#pragma once

#include "similarity.h"

namespace negvision {

constexpr float kCenterMargin = 0.01f;  // pixels, as in the authors' code

enum PriorState : uint8_t { kCandidate = 0, kExcluded = 1 };

struct Point {
  float x, y;
};

NV_HD Point center(const float* boxes, int64_t i) {
  const float* p = boxes + 4 * i;
  return {mul_rn(add_rn(p[0], p[2]), 0.5f), mul_rn(add_rn(p[1], p[3]), 0.5f)};
}

NV_HD float squared_distance(Point a, Point b) {
  const float dx = sub_rn(a.x, b.x), dy = sub_rn(a.y, b.y);
  return add_rn(mul_rn(dx, dx), mul_rn(dy, dy));
}

// Whether a box can claim priors: positive width and height, finite area.
NV_HD bool is_proper(const float* box) {
  return box[2] > box[0] && box[3] > box[1] && is_finite(area(load_box(box, 0)));
}

// Mean plus unbiased standard deviation, accumulated in double and in order, so that equal values give
// exactly that value; float could round the sum above it and reject every candidate. A single value
// has no deviation: the result is NaN, and nothing passes.
NV_HD double adaptive_threshold(const float* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum = add_rn(sum, double(values[i]));
  const double mean = div_rn(sum, double(count));
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double off = sub_rn(double(values[i]), mean);
    squares = add_rn(squares, mul_rn(off, off));
  }
  return add_rn(mean, sqrt_rn(div_rn(squares, double(count - 1))));
}

NV_HD bool lies_inside(Point p, Box<float> box, float margin = kCenterMargin) {
  return sub_rn(p.x, box.x1) > margin && sub_rn(p.y, box.y1) > margin &&
      sub_rn(box.x2, p.x) > margin && sub_rn(box.y2, p.y) > margin;
}

// The box of an object, enlarged about its middle to at least `least` pixels a side.
NV_HD Box<float> enlarged(const float* box, float least) {
  const Box<float> b = load_box(box, 0);
  const float x = mul_rn(max_of(sub_rn(least, sub_rn(b.x2, b.x1)), 0.0f), 0.5f);
  const float y = mul_rn(max_of(sub_rn(least, sub_rn(b.y2, b.y1)), 0.0f), 0.5f);
  return {sub_rn(b.x1, x), sub_rn(b.y1, y), add_rn(b.x2, x), add_rn(b.y2, y)};
}

// Prediction-aware overlap of DDOD (Chen et al., ACM MM 2021): sigmoid(s)^(1-alpha) IoU^alpha. In
// double, so that exp and pow of different devices still round to the same float.
NV_HD float prediction_overlap(float logit, float iou, double alpha) {
  const double p = 1.0 / (1.0 + exp(-double(logit)));
  return float(pow(p, 1.0 - alpha) * pow(double(iou), alpha));
}

// Orders claims on one prior by overlap, then by lower box index. Overlaps are not negative, so their
// bits sort like their values. 0 means unclaimed.
NV_HD uint64_t claim_key(float value, uint32_t box_in_image) {
  return (uint64_t(bits_of(value)) << 32) | uint64_t(0xffffffffu - box_in_image);
}
NV_HD float claim_overlap(uint64_t key) { return float_of(uint32_t(key >> 32)); }
NV_HD int64_t claim_box(uint64_t key) { return int64_t(0xffffffffu - uint32_t(key)); }

// The overlap of candidates: similarity with the prior, or DDOD's form with predictions. All pointers
// belong to one image.
struct Overlaps {
  const float* priors;
  const float* pred_boxes;
  const float* pred_scores;
  int64_t num_classes;
  double alpha;
  Similarity similarity;

  NV_HD float operator()(int64_t prior, const float* gt_box, int64_t label) const {
    const Box<float> gt = load_box(gt_box, 0);
    if (!pred_boxes) return similarity(load_box(priors, prior), gt);
    const float alike = similarity(load_box(pred_boxes, prior), gt);
    return prediction_overlap(pred_scores[prior * num_classes + label], alike, alpha);
  }
};

// Whether one of the ignored boxes covers more than `threshold` of the prior's area, or, with
// `of_ignored`, the prior that share of the ignored box.
NV_HD bool is_ignored(
    const float* priors, int64_t prior, const float* ignored, int64_t count, float threshold,
    bool of_ignored = false) {
  const Box<float> p = load_box(priors, prior);
  for (int64_t i = 0; i < count; ++i) {
    const Box<float> q = load_box(ignored, i);
    const float share = of_ignored ? overlap(q, p, OverlapMode::kIoF, kUnionFloor)
                                   : overlap(p, q, OverlapMode::kIoF, kUnionFloor);
    if (share > threshold) return true;
  }
  return false;
}

}  // namespace negvision
