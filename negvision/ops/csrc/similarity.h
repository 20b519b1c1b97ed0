// How alike two boxes are, from 0 to 1: IoU, or a similarity that is above 0 for boxes apart, too.
#pragma once

#include "box_math.h"

namespace negvision {

constexpr float kUnionFloor = 1e-6f;

// kNwd: normalized Wasserstein distance (Wang et al., 2021, section 3.2). kSimD: similarity distance
// (Shi et al., 2024, section III).
enum class SimilarityKind : int64_t { kIoU = 0, kNwd = 1, kSimD = 2 };

struct Similarity {
  SimilarityKind kind = SimilarityKind::kIoU;
  double scale[2] = {1, 1};  // kNwd: C, in pixels. kSimD: m and n.

  // The negative logarithm, in a double: its exponential rounds to the same float on every device. A
  // box whose sides are reversed has no width or height.
  NV_HD double distance(Box<float> a, Box<float> b) const {
    const double wa = max_of(sub_rn(double(a.x2), double(a.x1)), 0.0);
    const double ha = max_of(sub_rn(double(a.y2), double(a.y1)), 0.0);
    const double wb = max_of(sub_rn(double(b.x2), double(b.x1)), 0.0);
    const double hb = max_of(sub_rn(double(b.y2), double(b.y1)), 0.0);
    const double x = sub_rn(add_rn(double(a.x1), double(a.x2)), add_rn(double(b.x1), double(b.x2)));
    const double y = sub_rn(add_rn(double(a.y1), double(a.y2)), add_rn(double(b.y1), double(b.y2)));
    return from_offsets(
        mul_rn(0.5, x), mul_rn(0.5, y), sub_rn(wa, wb), sub_rn(ha, hb), add_rn(wa, wb),
        add_rn(ha, hb));
  }

  NV_HD float operator()(Box<float> a, Box<float> b) const {
    if (kind == SimilarityKind::kIoU) return overlap(a, b, OverlapMode::kIoU, kUnionFloor);
    return float(exp(-distance(a, b)));
  }

  // A limit of the similarity of b with boxes inside of `around`; rounded up. Not for kIoU.
  NV_HD float limit(Box<float> around, Box<float> b) const {
    const double x = 0.5 * (double(b.x1) + b.x2), y = 0.5 * (double(b.y1) + b.y2);
    const double dx = max_of(max_of(around.x1 - x, x - around.x2), 0.0);
    const double dy = max_of(max_of(around.y1 - y, y - around.y2), 0.0);
    const double w = double(around.x2) - around.x1 + b.x2 - b.x1;
    const double h = double(around.y2) - around.y1 + b.y2 - b.y1;
    return 1.0001f * float(exp(-from_offsets(dx, dy, 0, 0, w, h)));
  }

 private:
  // From the differences of centers and sides, and the sums of sides.
  NV_HD double from_offsets(double x, double y, double w, double h, double sw, double sh) const {
    if (kind == SimilarityKind::kNwd) {
      const double sides = mul_rn(0.25, add_rn(mul_rn(w, w), mul_rn(h, h)));
      return div_rn(sqrt_rn(add_rn(add_rn(mul_rn(x, x), mul_rn(y, y)), sides)), scale[0]);
    }
    const double m = div_rn(scale[0], sw), n = div_rn(scale[1], sh);
    return add_rn(length(mul_rn(x, m), mul_rn(y, n)), length(mul_rn(w, m), mul_rn(h, n)));
  }

  static NV_HD double length(double x, double y) {
    return sqrt_rn(add_rn(mul_rn(x, x), mul_rn(y, y)));
  }
};

}  // namespace negvision
