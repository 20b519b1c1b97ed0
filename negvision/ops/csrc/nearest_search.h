// Selects the k priors of a level whose centers are nearest to a point, ordered by (distance, index).
// On a grid it reads a small window around the point and widens it until nothing outside can be
// nearer; otherwise it reads the full level.
#pragma once

#include "atss_math.h"

namespace negvision {

// One pyramid level. If its priors form a grid, `row_length` is the number of locations per row,
// `per_location` the number of priors at each, and `deviation` the largest distance of a prior's
// center from its row and column. row_length = 0: no grid.
struct Level {
  int64_t begin;
  int64_t size;
  int64_t row_length;
  int64_t per_location;
  float deviation;
};

// Grid detection: a guess from where the first location and the first row end, then a check of every
// prior. A GPU finds the two ends in parallel.
constexpr float kSamePlace = 0.01f;  // pixels

NV_HD bool leaves_row(const float* priors, int64_t begin, int64_t i) {
  const float off = sub_rn(center(priors, i).y, center(priors, begin).y);
  return !(off <= kSamePlace && off >= -kSamePlace);
}
NV_HD bool leaves_location(const float* priors, int64_t begin, int64_t i) {
  const float off = sub_rn(center(priors, i).x, center(priors, begin).x);
  return leaves_row(priors, begin, i) || !(off <= kSamePlace && off >= -kSamePlace);
}

// The grid whose first location has `location` priors and whose first row has `row`.
NV_HD Level guess_grid(int64_t begin, int64_t size, int64_t location, int64_t row) {
  Level level{begin, size, 0, location, 0};
  if (location > 0 && row % location == 0 && size % row == 0) level.row_length = row / location;
  return level;
}

NV_HD float column_of(const float* priors, const Level& level, int64_t c) {
  return center(priors, level.begin + c * level.per_location).x;
}
NV_HD float row_of(const float* priors, const Level& level, int64_t r) {
  return center(priors, level.begin + r * level.row_length * level.per_location).y;
}

// Whether a prior's center lies on its row and column; false for NaN. No branches, so it vectorizes.
NV_HD bool is_in_place(Point p, float column, float row, float deviation) {
  const float dx = sub_rn(p.x, column), dy = sub_rn(p.y, row);
  return (dx <= deviation) & (dx >= -deviation) & (dy <= deviation) & (dy >= -deviation);
}

// The allowed deviation, as rounding causes for priors of several shapes: a small part of the distance
// between the first two rows or columns. With more, windows would grow over all priors.
NV_HD float allowed_deviation(const float* priors, const Level& level) {
  const int64_t n = level.per_location, row_step = level.row_length * n;
  const Point first = center(priors, level.begin);
  float step = 1e30f;
  if (level.row_length > 1) step = sub_rn(center(priors, level.begin + n).x, first.x);
  if (level.size > row_step) {
    step = min_of(step, sub_rn(center(priors, level.begin + row_step).y, first.y));
  }
  return step < 1e30f ? mul_rn(step, 1.0f / 64) : kSamePlace;
}

// The k nearest so far, sorted by (distance, index), which breaks ties equally on every device. A
// prior whose distance is NaN or infinite never enters.
struct Nearest {
  float* distance;
  int64_t* index;
  int capacity;
  int count;
  float worst;

  NV_HD Nearest(float* d, int64_t* i, int k)
      : distance(d), index(i), capacity(k), count(0), worst(float_of(0x7f800000u)) {}

  NV_HD void offer(float d, int64_t i) {
    if (count == capacity) {
      if (!(d < worst) && !(d == worst && i < index[count - 1])) return;
    } else if (!is_finite(d)) {
      return;
    }
    int at = count < capacity ? count : capacity - 1;
    while (at > 0 && (distance[at - 1] > d || (distance[at - 1] == d && index[at - 1] > i))) {
      distance[at] = distance[at - 1];
      index[at] = index[at - 1];
      --at;
    }
    distance[at] = d;
    index[at] = i;
    if (count < capacity) ++count;
    worst = distance[count - 1];
  }
};

// Reads every prior of a level without a grid.
NV_HD void search_all(
    const float* priors, const uint8_t* state, const Level& level, Point target, Nearest& nearest) {
  for (int64_t i = level.begin; i < level.begin + level.size; ++i) {
    if (state && state[i]) continue;
    nearest.offer(squared_distance(center(priors, i), target), i);
  }
}

// Guesses the nearest of `count` nearly equidistant coordinates. The search below is exact wherever
// it starts.
NV_HD int64_t guess_position(float first, float last, int64_t count, float x) {
  if (count < 2 || !(last > first)) return 0;
  const float at = (x - first) / (last - first) * float(count - 1) + 0.5f;
  if (!(at > 0.0f)) return 0;
  return at >= float(count) ? count - 1 : int64_t(at);
}

// Columns c0 to c1 and rows r0 to r1 of a grid, all inclusive.
struct Window {
  int64_t c0, c1, r0, r1;
};

// Whether no prior outside the window can be as near as `worst`, by lower bounds on their distance:
// across the border of the window, and along it if the target lies beside the grid.
NV_HD bool holds_nearest(
    const float* priors, const Level& level, Point target, const Window& window, float worst) {
  const int64_t n = level.per_location, columns = level.row_length, row_step = columns * n;
  const int64_t rows = level.size / row_step;
  if (window.c0 == 0 && window.r0 == 0 && window.c1 == columns - 1 && window.r1 == rows - 1) {
    return true;
  }
  const Point low = center(priors, level.begin),
              high = center(priors, level.begin + level.size - 1);
  // Slightly more than the deviation, which was compared after rounding.
  const double d = level.deviation * 1.000001, x = target.x, y = target.y;
  // The last prior is itself up to d away from its row and column.
  const double beside_x = max_of(max_of(low.x - d - x, x - 2 * d - high.x), 0.0);
  const double beside_y = max_of(max_of(low.y - d - y, y - 2 * d - high.y), 0.0);
  double dx = 1e150, dy = 1e150;
  if (window.c0 > 0) dx = min_of(dx, x - column_of(priors, level, window.c0 - 1) - d);
  if (window.c1 < columns - 1) dx = min_of(dx, column_of(priors, level, window.c1 + 1) - x - d);
  if (window.r0 > 0) dy = min_of(dy, y - row_of(priors, level, window.r0 - 1) - d);
  if (window.r1 < rows - 1) dy = min_of(dy, row_of(priors, level, window.r1 + 1) - y - d);
  dx = max_of(dx, 0.0);
  dy = max_of(dy, 0.0);
  const double bound = min_of(dx * dx + beside_y * beside_y, dy * dy + beside_x * beside_x);
  // A computed squared distance is too low by at most three roundings of 2^-24, which the factor
  // covers; near 0 it can underflow.
  return bound > 1e-18 && double(worst) < bound * (1.0 - 4e-7);
}

// Searches a window around the target and widens it until no unvisited row or column can hold a
// nearer prior, or an equally near one with a lower index.
NV_HD void search_window(
    const float* priors, const uint8_t* state, const Level& level, Point target, Nearest& nearest) {
  const int64_t n = level.per_location;
  const int64_t columns = level.row_length;
  const int64_t row_step = columns * n;
  const int64_t rows = level.size / row_step;
  const Point low = center(priors, level.begin),
              high = center(priors, level.begin + level.size - 1);
  const int64_t col = guess_position(low.x, high.x, columns, target.x);
  const int64_t row = guess_position(low.y, high.y, rows, target.y);

  int64_t radius = 1;
  while ((2 * radius + 1) * (2 * radius + 1) * n < nearest.capacity) ++radius;

  Window visited{col, col - 1, row, row - 1};  // empty so far
  while (true) {
    const Window next{
        max_of(col - radius, int64_t(0)), min_of(col + radius, columns - 1),
        max_of(row - radius, int64_t(0)), min_of(row + radius, rows - 1)};
    for (int64_t r = next.r0; r <= next.r1; ++r) {
      const bool row_was_visited = r >= visited.r0 && r <= visited.r1;
      for (int64_t c = next.c0; c <= next.c1; ++c) {
        if (row_was_visited && c == visited.c0) {
          c = visited.c1;
          continue;
        }
        const int64_t first = level.begin + r * row_step + c * n;
        for (int64_t i = first; i < first + n; ++i) {
          if (state && state[i]) continue;
          nearest.offer(squared_distance(center(priors, i), target), i);
        }
      }
    }
    visited = next;
    const bool all = next.c0 == 0 && next.r0 == 0 && next.c1 == columns - 1 && next.r1 == rows - 1;
    if (all) return;
    if (nearest.count == nearest.capacity &&
        holds_nearest(priors, level, target, visited, nearest.worst)) {
      return;
    }
    ++radius;
  }
}

// The nearest k of one level.
NV_HD void search_level(
    const float* priors, const uint8_t* state, const Level& level, Point target, Nearest& nearest) {
  if (level.size == 0) return;
  if (level.row_length > 0) {
    search_window(priors, state, level, target, nearest);
  } else {
    search_all(priors, state, level, target, nearest);
  }
}

}  // namespace negvision
