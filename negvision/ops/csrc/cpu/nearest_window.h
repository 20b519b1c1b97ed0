// The common case of search_window on the CPU: one prior per location, exactly on its row and column,
// none excluded, and a window of 4 x 4 that certainly holds the nearest k. For k = 9 it does if the
// target is more than a row and a column inside the grid: the ninth nearest is then less than 2 steps
// away, and everything outside the window 2 steps or more. Priors are ranked by counting, without
// branches on distances. In all other cases the caller uses search_window, with the same result.
#pragma once

#include "../nearest_search.h"

namespace negvision {

constexpr int kWindowSide = 4;
constexpr int kWindowSize = kWindowSide * kWindowSide;

inline bool fits_window(const Level& level, int64_t k) {
  return level.per_location == 1 && level.deviation == 0 && level.row_length >= kWindowSide &&
      level.size >= kWindowSide * level.row_length && k <= kWindowSize;
}

// The start of a window along an axis that is centered on x.
inline int64_t window_begin(float first, float last, int64_t count, float x) {
  const float before = (x - first) / (last - first) * float(count - 1) - 1.0f;
  if (!(before > 0.0f)) return 0;
  return before >= float(count - kWindowSide) ? count - kWindowSide : int64_t(before);
}

// Writes the k nearest to `index`, sorted by (distance, index), and returns true, or returns false and
// writes nothing. The level and k must fit the window; `index` has room for the full window.
inline bool nearest_in_window(
    const float* priors, const Level& level, Point target, int64_t k, int64_t* index) {
  typedef float Floats __attribute__((vector_size(4 * kWindowSide)));
  typedef int32_t Row __attribute__((vector_size(4 * kWindowSide)));
  const int64_t columns = level.row_length, rows = level.size / columns;
  const Point low = center(priors, level.begin),
              high = center(priors, level.begin + level.size - 1);
  const int64_t c0 = window_begin(low.x, high.x, columns, target.x);
  const int64_t r0 = window_begin(low.y, high.y, rows, target.y);

  // The bits of a distance sort like its value.
  const Floats x = {
      column_of(priors, level, c0), column_of(priors, level, c0 + 1),
      column_of(priors, level, c0 + 2), column_of(priors, level, c0 + 3)};
  const Floats dx = x - target.x, dx2 = dx * dx;
  Row bits[kWindowSide], rank[kWindowSide] = {};
  for (int r = 0; r < kWindowSide; ++r) {
    const float dy = sub_rn(row_of(priors, level, r0 + r), target.y);
    bits[r] = (Row)(dx2 + mul_rn(dy, dy));
  }
  // A prior's rank is the number of priors before it. Of equally distant priors, the lower index comes
  // first: a row above, or further left.
  constexpr Row column = {0, 1, 2, 3};
  for (int r = 0; r < kWindowSide; ++r) {
    for (int c = 0; c < kWindowSide; ++c) {
      const Row other = bits[r][c] - Row{};
      for (int i = 0; i < kWindowSide; ++i) {
        if (i < r) rank[i] -= other < bits[i];
        if (i > r) rank[i] -= other <= bits[i];
      }
      rank[r] -= (other < bits[r]) | ((other == bits[r]) & (column > c));
    }
  }
  Row last = {};
  for (int r = 0; r < kWindowSide; ++r) last |= bits[r] & (rank[r] == int32_t(k - 1));
  const float worst = float_of(uint32_t(last[0] | last[1] | last[2] | last[3]));
  const Window window{c0, c0 + kWindowSide - 1, r0, r0 + kWindowSide - 1};
  if (!is_finite(target.x) || !is_finite(target.y) || !is_finite(worst) ||
      !holds_nearest(priors, level, target, window, worst)) {
    return false;
  }
  const int64_t first = level.begin + r0 * columns + c0;
  for (int r = 0; r < kWindowSide; ++r) {
    for (int c = 0; c < kWindowSide; ++c) index[rank[r][c]] = first + r * columns + c;
  }
  return true;
}

}  // namespace negvision
