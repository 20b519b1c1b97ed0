// Boxes in blocks of neighbors, with the box around each: most blocks lie apart from a given box and
// are skipped. Coordinates are kept in rows of their own, so that loops vectorize.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "similarity.h"
#include "vectorize.h"

namespace negvision {

constexpr int64_t kBlock = 32;
constexpr float kLikely = 0.6f;

// The overlap of one box with `count` boxes of a block; returns the highest. NaN counts as highest.
[[maybe_unused]] NV_VECTORIZED static float block_overlaps(
    Box<float> gt, const float* x1, const float* y1, const float* x2, const float* y2,
    int64_t count, float eps, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = overlap(Box<float>{x1[i], y1[i], x2[i], y2[i]}, gt, OverlapMode::kIoU, eps);
  }
  // Bits of numbers that are not negative sort like the numbers, and their maximum vectorizes.
  int32_t most = 0;
  for (int64_t i = 0; i < count; ++i) most = std::max(most, int32_t(bits_of(out[i])));
  return float_of(uint32_t(most));
}

// The distances of one box from `count` boxes of a block, as Similarity has them.
[[maybe_unused]] NV_VECTORIZED static void block_distances(
    Similarity similarity, Box<float> gt, const float* x1, const float* y1, const float* x2,
    const float* y2, int64_t count, double* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = similarity.distance(Box<float>{x1[i], y1[i], x2[i], y2[i]}, gt);
  }
}

// Which blocks touch a box. NaN bounds are of blocks without a number, and touch nothing.
[[maybe_unused]] NV_VECTORIZED static void touch_blocks(
    Box<float> gt, const float* x1, const float* y1, const float* x2, const float* y2,
    int64_t count, uint8_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = (x1[i] < gt.x2) & (x2[i] > gt.x1) & (y1[i] < gt.y2) & (y2[i] > gt.y1);
  }
}

// A limit of the IoU of a box with those of each block, from the box around the block and its least
// and largest area; rounded up.
[[maybe_unused]] NV_VECTORIZED static void block_limits(
    Box<float> gt, const float* x1, const float* y1, const float* x2, const float* y2,
    const float* least, const float* largest, int64_t count, float* out) {
  const float own = area(gt);
  for (int64_t i = 0; i < count; ++i) {
    const float shared = intersection(Box<float>{x1[i], y1[i], x2[i], y2[i]}, gt);
    const float top = shared < largest[i] ? shared : largest[i];
    const float bottom = least[i] > own ? least[i] : own;
    out[i] = 1.0001f * top / bottom;
  }
}

[[maybe_unused]] NV_VECTORIZED static void mark_above(
    const float* values, float floor, uint8_t* out) {
  for (int64_t i = 0; i < kBlock; ++i) out[i] = values[i] > floor;
}

// Calls visit(i) for the flags that are 1. Eight are looked at together, so there must be room for
// that after the last.
template <typename F>
void each_marked(const uint8_t* flags, int64_t count, const F& visit) {
  for (int64_t i = 0; i < count; i += 8) {
    uint64_t word;
    std::memcpy(&word, flags + i, sizeof(word));
    for (int64_t k = i; word != 0 && k < count; ++k, word >>= 8) {
      const int skipped = __builtin_ctzll(word) / 8;
      k += skipped;
      word >>= 8 * skipped;
      if (k < count) visit(k);
    }
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
    least_.resize(count());
    largest_.resize(count());
  }

  // `box(i)` is box i.
  template <typename F>
  void fill(int64_t block, const F& box) {
    constexpr float inf = std::numeric_limits<float>::infinity();
    Box<float> around{inf, inf, -inf, -inf};
    float least = inf, largest = 0;
    for (int64_t i = block * kBlock; i < block * kBlock + size_of(block); ++i) {
      const Box<float> b = box(i);
      coordinates_[0][i] = b.x1, coordinates_[1][i] = b.y1;
      coordinates_[2][i] = b.x2, coordinates_[3][i] = b.y2;
      // A NaN changes nothing.
      around.x1 = std::min({around.x1, b.x1, b.x2}), around.y1 = std::min({around.y1, b.y1, b.y2});
      around.x2 = std::max({around.x2, b.x1, b.x2}), around.y2 = std::max({around.y2, b.y1, b.y2});
      least = std::min(least, area(b)), largest = std::max(largest, area(b));
    }
    least_[block] = least, largest_[block] = largest;
    bounds_[0][block] = around.x1, bounds_[1][block] = around.y1;
    bounds_[2][block] = around.x2, bounds_[3][block] = around.y2;
  }

  // Calls visit(first box, number of boxes) for the blocks that touch `gt`. `touched` is scratch.
  template <typename F>
  void visit(Box<float> gt, std::vector<uint8_t>& touched, const F& visit) const {
    touched.resize(count() + 8);
    touch_blocks(
        gt, bounds_[0].data(), bounds_[1].data(), bounds_[2].data(), bounds_[3].data(), count(),
        touched.data());
    each_marked(
        touched.data(), count(), [&](int64_t block) { visit(block * kBlock, size_of(block)); });
  }

  // Calls visit(first box, number of boxes) for the blocks with similarities above `floor`, which `visit` may
  // raise; those that are likely to raise it come first.
  template <typename F>
  void visit_above(
      Box<float> gt, const Similarity& similarity, const float& floor, std::vector<float>& limits,
      std::vector<int64_t>& later, const F& visit) const {
    limits.resize(count());
    later.clear();
    if (similarity.kind == SimilarityKind::kIoU) {
      block_limits(
          gt, bounds_[0].data(), bounds_[1].data(), bounds_[2].data(), bounds_[3].data(),
          least_.data(), largest_.data(), count(), limits.data());
    } else {
      for (int64_t b = 0; b < count(); ++b) limits[b] = similarity.limit(bounds_of(b), gt);
    }
    for (int64_t block = 0; block < count(); ++block) {
      if (!(limits[block] > floor)) continue;
      if (limits[block] < kLikely) {
        later.push_back(block);
      } else {
        visit(block * kBlock, size_of(block));
      }
    }
    for (const int64_t block : later) {
      if (limits[block] > floor) visit(block * kBlock, size_of(block));
    }
  }

  // Whether some box of a block can have this IoU with one of the area.
  bool can_reach(int64_t block, float iou, float area) const {
    return !(largest_[block] < 0.9999f * iou * area || area < 0.9999f * iou * least_[block]);
  }

  Box<float> bounds_of(int64_t block) const {
    return {bounds_[0][block], bounds_[1][block], bounds_[2][block], bounds_[3][block]};
  }
  // Calls visit(i) for the boxes, not blocks, that touch another. `touched` is scratch.
  template <typename F>
  void visit_each(Box<float> other, std::vector<uint8_t>& touched, const F& visit) const {
    touched.resize(size_ + 8);
    touch_blocks(
        other, coordinates_[0].data(), coordinates_[1].data(), coordinates_[2].data(),
        coordinates_[3].data(), size_, touched.data());
    each_marked(touched.data(), size_, visit);
  }

  // The similarities of a box with `count` others, but 0 where they cannot be above `floor`; returns
  // the highest. Not for kIoU.
  float similarities(
      const Similarity& similarity, Box<float> gt, int64_t first, int64_t count, float floor,
      float* out) const {
    double distance[kBlock];
    block_distances(
        similarity, gt, coordinates_[0].data() + first, coordinates_[1].data() + first,
        coordinates_[2].data() + first, coordinates_[3].data() + first, count, distance);
    const double reach = floor > 0 ? 1e-6 - 1.000001 * std::log(double(floor)) : 1e30;
    float most = 0;
    for (int64_t i = 0; i < count; ++i) {
      out[i] = distance[i] < reach ? float(std::exp(-distance[i])) : 0.0f;
      most = std::max(most, out[i]);
    }
    return most;
  }

  float overlaps(Box<float> gt, int64_t first, int64_t count, float eps, float* out) const {
    return block_overlaps(
        gt, coordinates_[0].data() + first, coordinates_[1].data() + first,
        coordinates_[2].data() + first, coordinates_[3].data() + first, count, eps, out);
  }

 private:
  int64_t size_ = 0;
  std::vector<float> coordinates_[4], bounds_[4], least_, largest_;
};

}  // namespace negvision
