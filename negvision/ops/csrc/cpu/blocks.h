// Boxes in blocks of neighbors, with the box around each: most blocks lie apart from a given box and
// are skipped. Coordinates are kept in rows of their own, so that loops vectorize.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "atss_math.h"
#include "vectorize.h"

namespace negvision {

constexpr int64_t kBlock = 32;  // a mask of a block has a bit per box

// The overlaps of one box of finite area with those of a block, and which are above `floor`. As in
// overlap(): a NaN coordinate makes the area, and so the overlap, NaN.
[[maybe_unused]] NV_VECTORIZED_WIDE static uint32_t block_overlaps(
    Box<float> gt, const float* x1, const float* y1, const float* x2, const float* y2, float floor,
    float* out) {
  const float own = area(gt);
  uint32_t above = 0;
  for (int i = 0; i < kBlock; ++i) {
    const float width = (x2[i] < gt.x2 ? x2[i] : gt.x2) - (x1[i] > gt.x1 ? x1[i] : gt.x1);
    const float height = (y2[i] < gt.y2 ? y2[i] : gt.y2) - (y1[i] > gt.y1 ? y1[i] : gt.y1);
    const float shared = (width > 0 ? width : 0.0f) * (height > 0 ? height : 0.0f);
    const float both = (x2[i] - x1[i]) * (y2[i] - y1[i]) + own - shared;
    out[i] = shared / max_of(both, kUnionFloor);
    above |= out[i] > floor ? uint32_t(1) << i : 0;
  }
  return above;
}

// The distances of one box from those of a block, as Similarity has them.
[[maybe_unused]] NV_VECTORIZED static void block_distances(
    Similarity similarity, Box<float> gt, const float* x1, const float* y1, const float* x2,
    const float* y2, double* out) {
  for (int i = 0; i < kBlock; ++i) {
    out[i] = similarity.distance(Box<float>{x1[i], y1[i], x2[i], y2[i]}, gt);
  }
}

// Which of 32 boxes touch another. NaN touches nothing.
[[maybe_unused]] NV_VECTORIZED_WIDE static uint32_t touching(
    Box<float> other, const float* x1, const float* y1, const float* x2, const float* y2) {
  uint32_t result = 0;
  for (int i = 0; i < kBlock; ++i) {
    const bool touches =
        (x1[i] < other.x2) & (x2[i] > other.x1) & (y1[i] < other.y2) & (y2[i] > other.y1);
    result |= touches ? uint32_t(1) << i : 0;
  }
  return result;
}

// Limits of the IoU of a box with those of each block, from the box around the block and its least and
// largest area; rounded up.
[[maybe_unused]] NV_VECTORIZED_WIDE static void block_limits(
    Box<float> gt, const float* x1, const float* y1, const float* x2, const float* y2,
    const float* least, const float* largest, int64_t count, float* out) {
  const float own = area(gt);
  for (int64_t i = 0; i < count; ++i) {
    const float width = (x2[i] < gt.x2 ? x2[i] : gt.x2) - (x1[i] > gt.x1 ? x1[i] : gt.x1);
    const float height = (y2[i] < gt.y2 ? y2[i] : gt.y2) - (y1[i] > gt.y1 ? y1[i] : gt.y1);
    const float shared = (width > 0 ? width : 0.0f) * (height > 0 ? height : 0.0f);
    const float top = shared < largest[i] ? shared : largest[i];
    const float bottom = least[i] > own ? least[i] : own;
    out[i] = 1.0001f * top / bottom;
  }
}

// The same for each box of a block with one block of others, `around` of which lies.
[[maybe_unused]] NV_VECTORIZED_WIDE static void limits_in_block(
    Box<float> around, float least, float largest, const float* x1, const float* y1,
    const float* x2, const float* y2, float* out) {
  for (int i = 0; i < kBlock; ++i) {
    const float width =
        (x2[i] < around.x2 ? x2[i] : around.x2) - (x1[i] > around.x1 ? x1[i] : around.x1);
    const float height =
        (y2[i] < around.y2 ? y2[i] : around.y2) - (y1[i] > around.y1 ? y1[i] : around.y1);
    const float shared = (width > 0 ? width : 0.0f) * (height > 0 ? height : 0.0f);
    const float own = (x2[i] - x1[i]) * (y2[i] - y1[i]);
    const float top = shared < largest ? shared : largest;
    const float bottom = least > own ? least : own;
    out[i] = 1.0001f * top / bottom;
  }
}

[[maybe_unused]] NV_VECTORIZED_WIDE static uint32_t above(const float* values, float floor) {
  uint32_t result = 0;
  for (int i = 0; i < kBlock; ++i) result |= values[i] > floor ? uint32_t(1) << i : 0;
  return result;
}

// The highest value of a block, or 0 if none is above 0, and where it is.
[[maybe_unused]] NV_VECTORIZED_WIDE static uint32_t where_highest(
    const float* values, float* highest) {
  int32_t most = 0;
  // Bits of numbers that are not negative sort like the numbers, and their maximum vectorizes.
  for (int i = 0; i < kBlock; ++i) {
    const int32_t bits = values[i] > 0 ? int32_t(bits_of(values[i])) : 0;
    most = bits > most ? bits : most;
  }
  *highest = float_of(uint32_t(most));
  uint32_t result = 0;
  for (int i = 0; i < kBlock; ++i) result |= values[i] == *highest ? uint32_t(1) << i : 0;
  return result;
}

// The highest number below one that is not negative, for comparisons that equal ones shall pass.
inline float just_below(float value) { return value > 0 ? float_of(bits_of(value) - 1) : 0.0f; }

// Calls visit(i) for the bits that are 1.
template <typename F>
void each_bit(uint32_t bits, const F& visit) {
  for (; bits != 0; bits &= bits - 1) visit(int64_t(__builtin_ctz(bits)));
}

// The order of boxes by scale and place, those of one cell by index. It brings boxes together that are
// alike: a block of them has tight bounds. `box(i)` is box i.
template <typename F>
void sort_by_place(int64_t count, const F& box, std::vector<int32_t>& order) {
  constexpr int kScales = 6, kCells = 64;
  std::vector<int32_t> cells(count), begin(kScales * kCells * kCells + 1);
  for (int64_t i = 0; i < count; ++i) {
    const Box<float> b = box(i);
    const float size = area(b), x = 0.5f * (b.x1 + b.x2), y = 0.5f * (b.y1 + b.y2);
    int cell = 0;
    if (is_finite(size) && is_finite(x) && is_finite(y)) {
      int scale = 0;  // cells are about as large as boxes, 32 pixels or more
      while (scale < kScales - 1 && size > float(1 << (2 * scale + 10))) ++scale;
      const float side = float(32 << scale), last = kCells - 1;
      cell = (scale * kCells + int(std::min(std::max(y / side, 0.0f), last))) * kCells +
          int(std::min(std::max(x / side, 0.0f), last));
    }
    cells[i] = cell;
    ++begin[cell + 1];
  }
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  order.resize(count);
  for (int64_t i = 0; i < count; ++i) order[begin[cells[i]]++] = int32_t(i);
}

class Blocks {
 public:
  int64_t count() const { return (size_ + kBlock - 1) / kBlock; }
  int64_t size() const { return size_; }
  int64_t size_of(int64_t block) const { return std::min(kBlock, size_ - block * kBlock); }

  // Reserves room for `size` boxes; `fill` then fills blocks, in any thread. Places past the end touch
  // nothing.
  void resize(int64_t size) {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    size_ = size;
    const int64_t padded = (count() + kBlock - 1) / kBlock * kBlock;
    for (auto& row : coordinates_) row.resize(count() * kBlock);
    for (auto& row : bounds_) row.assign(padded, nan);
    least_.assign(padded, 0.0f);
    largest_.assign(padded, 0.0f);
  }

  // `box(i)` is box i.
  template <typename F>
  void fill(int64_t block, const F& box) {
    constexpr float inf = std::numeric_limits<float>::infinity();
    Box<float> around{inf, inf, -inf, -inf};
    float least = inf, largest = 0;
    const int64_t first = block * kBlock;
    for (int64_t i = first; i < first + kBlock; ++i) {
      const Box<float> b = i < size_ ? box(i) : Box<float>{inf, inf, -inf, -inf};
      coordinates_[0][i] = b.x1, coordinates_[1][i] = b.y1;
      coordinates_[2][i] = b.x2, coordinates_[3][i] = b.y2;
      if (i >= size_) continue;
      // A NaN changes nothing.
      around.x1 = std::min({around.x1, b.x1, b.x2}), around.y1 = std::min({around.y1, b.y1, b.y2});
      around.x2 = std::max({around.x2, b.x1, b.x2}), around.y2 = std::max({around.y2, b.y1, b.y2});
      least = std::min(least, area(b)), largest = std::max(largest, area(b));
    }
    least_[block] = least, largest_[block] = largest;
    bounds_[0][block] = around.x1, bounds_[1][block] = around.y1;
    bounds_[2][block] = around.x2, bounds_[3][block] = around.y2;
  }

  // Calls visit(block) for the blocks that touch `other`.
  template <typename F>
  void visit(Box<float> other, const F& visit) const {
    for (int64_t b = 0; b < count(); b += kBlock) {
      const uint32_t touched = touching(
          other, bounds_[0].data() + b, bounds_[1].data() + b, bounds_[2].data() + b,
          bounds_[3].data() + b);
      each_bit(touched, [&](int64_t k) { visit(b + k); });
    }
  }

  // The boxes of a block that touch another.
  uint32_t touching_in(int64_t block, Box<float> other) const {
    const int64_t i = block * kBlock;
    return touching(
        other, coordinates_[0].data() + i, coordinates_[1].data() + i, coordinates_[2].data() + i,
        coordinates_[3].data() + i);
  }

  // No similarity of `gt` with a box of a block is above the block's limit.
  void limits(Box<float> gt, const Similarity& similarity, std::vector<float>& out) const {
    out.resize(least_.size());
    if (similarity.kind == SimilarityKind::kIoU) {
      block_limits(
          gt, bounds_[0].data(), bounds_[1].data(), bounds_[2].data(), bounds_[3].data(),
          least_.data(), largest_.data(), out.size(), out.data());
    } else {
      for (size_t b = 0; b < out.size(); ++b) out[b] = similarity.limit(bounds_of(b), gt);
    }
  }

  // No IoU of a box of `block` with a box of a block of `others` is above its limit.
  void limits_in(int64_t block, const Blocks& others, int64_t other, float* out) const {
    const int64_t i = block * kBlock;
    limits_in_block(
        others.bounds_of(other), others.least_[other], others.largest_[other],
        coordinates_[0].data() + i, coordinates_[1].data() + i, coordinates_[2].data() + i,
        coordinates_[3].data() + i, out);
  }

  Box<float> bounds_of(int64_t block) const {
    return {bounds_[0][block], bounds_[1][block], bounds_[2][block], bounds_[3][block]};
  }

  // The IoUs of a box with those of a block; returns which are above `floor`. Past the end they are 0.
  uint32_t overlaps(Box<float> gt, int64_t block, float floor, float* out) const {
    const int64_t i = block * kBlock;
    return block_overlaps(
        gt, coordinates_[0].data() + i, coordinates_[1].data() + i, coordinates_[2].data() + i,
        coordinates_[3].data() + i, floor, out);
  }

  // The same for any similarity, but 0 where it cannot be above `floor`.
  uint32_t similarities(
      const Similarity& similarity, Box<float> gt, int64_t block, float floor, float* out) const {
    if (similarity.kind == SimilarityKind::kIoU) return overlaps(gt, block, floor, out);
    double distance[kBlock];
    const int64_t first = block * kBlock;
    block_distances(
        similarity, gt, coordinates_[0].data() + first, coordinates_[1].data() + first,
        coordinates_[2].data() + first, coordinates_[3].data() + first, distance);
    const double reach = floor > 0 ? 1e-6 - 1.000001 * std::log(double(floor)) : 1e30;
    for (int64_t i = 0; i < kBlock; ++i) {
      const bool is_near = i < size_of(block) && distance[i] < reach;
      out[i] = is_near ? float(std::exp(-distance[i])) : 0.0f;
    }
    return above(out, floor);
  }

 private:
  int64_t size_ = 0;
  std::vector<float> coordinates_[4], bounds_[4], least_, largest_;
};

// Calls visit(block) for the blocks whose limit is above `floor`, which `visit` may raise; those that
// are likely to raise it come first. `later` is scratch.
template <typename F>
void visit_above(
    const std::vector<float>& limits, const float& floor, std::vector<int64_t>& later,
    const F& visit) {
  constexpr float kLikely[] = {0.6f, 0.4f, 0.25f, 0.0f};
  later.clear();
  for (size_t first = 0; first < limits.size(); first += kBlock) {
    each_bit(above(limits.data() + first, floor), [&](int64_t k) {
      const int64_t block = int64_t(first) + k;
      if (limits[block] < kLikely[0]) {
        later.push_back(block);
      } else if (limits[block] > floor) {
        visit(block);
      }
    });
  }
  for (int pass = 1; pass < 4; ++pass) {
    for (const int64_t block : later) {
      const float limit = limits[block];
      if (limit > floor && limit >= kLikely[pass] && limit < kLikely[pass - 1]) visit(block);
    }
  }
}

}  // namespace negvision
