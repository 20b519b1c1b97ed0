// Boxes in blocks of neighbors, with the box around each: most blocks lie apart from a given box and
// are skipped. Coordinates are kept in rows of their own, so that loops vectorize.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "box_math.h"
#include "vectorize.h"

namespace negvision {

constexpr int64_t kBlock = 32;

// The overlap of one box with `count` boxes of a block.
NV_VECTORIZED static void block_overlaps(
    Box<float> gt, const float* x1, const float* y1, const float* x2, const float* y2,
    int64_t count, float eps, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = overlap(Box<float>{x1[i], y1[i], x2[i], y2[i]}, gt, OverlapMode::kIoU, eps);
  }
}

// Which blocks touch a box. NaN bounds are of blocks without a number, and touch nothing.
NV_VECTORIZED static void touch_blocks(
    Box<float> gt, const float* x1, const float* y1, const float* x2, const float* y2,
    int64_t count, uint8_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = (x1[i] < gt.x2) & (x2[i] > gt.x1) & (y1[i] < gt.y2) & (y2[i] > gt.y1);
  }
}

class Blocks {
 public:
  int64_t count() const { return (size_ + kBlock - 1) / kBlock; }
  int64_t size_of(int64_t block) const { return std::min(kBlock, size_ - block * kBlock); }

  // Reserves room for `size` boxes; `fill` then fills blocks, in any thread.
  void resize(int64_t size) {
    size_ = size;
    for (auto& row : coordinates_) row.resize(size);
    for (auto& row : bounds_) row.resize(count());
  }

  // `box(i)` is box i.
  template <typename F>
  void fill(int64_t block, const F& box) {
    constexpr float inf = std::numeric_limits<float>::infinity();
    Box<float> around{inf, inf, -inf, -inf};
    for (int64_t i = block * kBlock; i < block * kBlock + size_of(block); ++i) {
      const Box<float> b = box(i);
      coordinates_[0][i] = b.x1, coordinates_[1][i] = b.y1;
      coordinates_[2][i] = b.x2, coordinates_[3][i] = b.y2;
      // A NaN changes nothing.
      around.x1 = std::min(around.x1, b.x1), around.y1 = std::min(around.y1, b.y1);
      around.x2 = std::max(around.x2, b.x2), around.y2 = std::max(around.y2, b.y2);
    }
    bounds_[0][block] = around.x1, bounds_[1][block] = around.y1;
    bounds_[2][block] = around.x2, bounds_[3][block] = around.y2;
  }

  // Calls visit(first box, number of boxes) for the blocks that touch `gt`. `touched` is scratch.
  template <typename F>
  void visit(Box<float> gt, std::vector<uint8_t>& touched, const F& visit) const {
    touched.resize(count());
    touch_blocks(
        gt, bounds_[0].data(), bounds_[1].data(), bounds_[2].data(), bounds_[3].data(), count(),
        touched.data());
    for (int64_t block = 0; block < count(); ++block) {
      if (touched[block]) visit(block * kBlock, size_of(block));
    }
  }

  bool touches(int64_t block, Box<float> gt) const {
    return bounds_[0][block] < gt.x2 && bounds_[2][block] > gt.x1 && bounds_[1][block] < gt.y2 &&
        bounds_[3][block] > gt.y1;
  }

  void overlaps(Box<float> gt, int64_t first, int64_t count, float eps, float* out) const {
    block_overlaps(
        gt, coordinates_[0].data() + first, coordinates_[1].data() + first,
        coordinates_[2].data() + first, coordinates_[3].data() + first, count, eps, out);
  }

 private:
  int64_t size_ = 0;
  std::vector<float> coordinates_[4], bounds_[4];
};

}  // namespace negvision
