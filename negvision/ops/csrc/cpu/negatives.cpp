// Negative pairs on the CPU: threads process rows, with vector loads.
#include <algorithm>
#include <cmath>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "../negatives_args.h"
#include "vectorize.h"

namespace negvision {
namespace {

using torch::stable::parallel_for;

constexpr int64_t kEntriesPerTask = 1 << 15;
constexpr int64_t kLanes = 16;

template <typename T>
Bounds<T> bounds_of(const NegativesArgs& args) {
  if (!args.bounds) {
    return {-std::numeric_limits<T>::infinity(), std::numeric_limits<T>::infinity()};
  }
  const T* data = static_cast<const T*>(args.bounds->const_data_ptr());
  return {data[0], data[1]};
}

int64_t rows_per_task(const Tile& tile) {
  return std::max<int64_t>(1, kEntriesPerTask / std::max<int64_t>(1, tile.columns));
}

// The three loops over a row. A macro for both types: target_clones does not work on templates. Two have
// a body for kLanes entries, which vectorizes, and a tail.
#define NV_ROW_FUNCTIONS(T)                                                                   \
  NV_VECTORIZED static T row_maximum(                                                         \
      const T* row, const int32_t* labels, int64_t count, int32_t label, Bounds<T> bounds,    \
      int64_t* kept) {                                                                        \
    const T none = -std::numeric_limits<T>::infinity();                                       \
    T most[kLanes];                                                                           \
    int32_t counts[kLanes] = {};                                                              \
    for (int64_t l = 0; l < kLanes; ++l) most[l] = none;                                      \
    int64_t j = 0;                                                                            \
    for (; j + kLanes <= count; j += kLanes) {                                                \
      for (int64_t l = 0; l < kLanes; ++l) {                                                  \
        const T v = row[j + l];                                                               \
        const bool keep = (labels[j + l] != label) & bounds.hold(v);                          \
        counts[l] += keep;                                                                    \
        most[l] = keep && v > most[l] ? v : most[l];                                          \
      }                                                                                       \
    }                                                                                         \
    T maximum = none;                                                                         \
    int64_t total = 0;                                                                        \
    for (int64_t l = 0; l < kLanes; ++l) {                                                    \
      maximum = std::max(maximum, most[l]);                                                   \
      total += counts[l];                                                                     \
    }                                                                                         \
    for (; j < count; ++j) {                                                                  \
      if (labels[j] == label || !bounds.hold(row[j])) continue;                               \
      ++total;                                                                                \
      maximum = std::max(maximum, row[j]);                                                    \
    }                                                                                         \
    *kept = total;                                                                            \
    return maximum;                                                                           \
  }                                                                                           \
                                                                                              \
  NV_VECTORIZED static double row_sum(                                                        \
      const T* row, const int32_t* labels, int64_t count, int32_t label, Bounds<T> bounds,    \
      T scale, T maximum) {                                                                   \
    T sums[kLanes] = {};                                                                      \
    int64_t j = 0;                                                                            \
    for (; j + kLanes <= count; j += kLanes) {                                                \
      for (int64_t l = 0; l < kLanes; ++l) {                                                  \
        const T v = row[j + l];                                                               \
        const T e = exp_of_negative(scale * (v - maximum));                                   \
        sums[l] += (labels[j + l] != label) & bounds.hold(v) ? e : T(0);                      \
      }                                                                                       \
    }                                                                                         \
    double total = 0;                                                                         \
    for (int64_t l = 0; l < kLanes; ++l) total += double(sums[l]);                            \
    for (; j < count; ++j) {                                                                  \
      if (labels[j] == label || !bounds.hold(row[j])) continue;                               \
      total += double(exp_of_negative(scale * (row[j] - maximum)));                           \
    }                                                                                         \
    return total;                                                                             \
  }                                                                                           \
                                                                                              \
  NV_VECTORIZED static void row_softmax(                                                      \
      T* row, const int32_t* labels, int64_t count, int32_t label, Bounds<T> bounds, T scale, \
      T logsumexp, T grad) {                                                                  \
    for (int64_t j = 0; j < count; ++j) {                                                     \
      const T v = row[j];                                                                     \
      const T off = scale * v - logsumexp;                                                    \
      const T e = grad * exp_of_negative(off > T(0) ? T(0) : off);                            \
      row[j] = (labels[j] != label) & bounds.hold(v) ? e : T(0);                              \
    }                                                                                         \
  }

NV_ROW_FUNCTIONS(float)
NV_ROW_FUNCTIONS(double)
#undef NV_ROW_FUNCTIONS

template <typename T>
void logsumexp(const NegativesArgs& args, T scale, Tensor& out, Tensor& kept) {
  const Tile tile = args.tile();
  const Bounds<T> bounds = bounds_of<T>(args);
  const T* data = static_cast<const T*>(args.similarities.const_data_ptr());
  T* values = static_cast<T*>(out.mutable_data_ptr());
  int64_t* counts = static_cast<int64_t*>(kept.mutable_data_ptr());
  parallel_for(0, tile.rows, rows_per_task(tile), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = tile.first_column(i), count = tile.columns - begin;
      const T* row = data + i * tile.columns + begin;
      const int32_t* labels = tile.column_labels + begin;
      const T maximum = row_maximum(row, labels, count, tile.row_labels[i], bounds, counts + i);
      values[i] = -std::numeric_limits<T>::infinity();
      if (counts[i] == 0) continue;
      const double sum = row_sum(row, labels, count, tile.row_labels[i], bounds, scale, maximum);
      values[i] = T(double(scale) * double(maximum) + std::log(sum));
    }
  });
}

template <typename T>
void softmax(const NegativesArgs& args, T scale, const Tensor& lse, const Tensor& grad) {
  const Tile tile = args.tile();
  const Bounds<T> bounds = bounds_of<T>(args);
  Tensor similarities = args.similarities;
  T* data = static_cast<T*>(similarities.mutable_data_ptr());
  const T* lse_of = static_cast<const T*>(lse.const_data_ptr());
  const T* grad_of = static_cast<const T*>(grad.const_data_ptr());
  parallel_for(0, tile.rows, rows_per_task(tile), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = tile.first_column(i);
      T* row = data + i * tile.columns;
      std::fill(row, row + begin, T(0));
      row_softmax(
          row + begin, tile.column_labels + begin, tile.columns - begin, tile.row_labels[i], bounds,
          scale, lse_of[i], scale * grad_of[i]);
    }
  });
}

template <typename T>
void histogram(const NegativesArgs& args, const Tensor& prefixes, int64_t shift, Tensor& out) {
  const Tile tile = args.tile();
  const T* data = static_cast<const T*>(args.similarities.const_data_ptr());
  const int64_t* prefix = static_cast<const int64_t*>(prefixes.const_data_ptr());
  const int64_t ranks = prefixes.numel();
  int64_t* counts = static_cast<int64_t*>(out.mutable_data_ptr());
  parallel_for(0, tile.rows, rows_per_task(tile), [&](int64_t first, int64_t last) {
    std::vector<int64_t> own(ranks * 256);
    for (int64_t i = first; i < last; ++i) {
      const T* row = data + i * tile.columns;
      for (int64_t j = tile.first_column(i); j < tile.columns; ++j) {
        if (tile.column_labels[j] == tile.row_labels[i]) continue;
        const uint64_t key = sortable(row[j]);
        for (int64_t q = 0; q < ranks; ++q) {
          own[q * 256 + ((key >> shift) & 255)] += has_prefix(key, prefix[q], shift);
        }
      }
    }
    for (int64_t b = 0; b < ranks * 256; ++b) {
      if (own[b]) __atomic_fetch_add(counts + b, own[b], __ATOMIC_RELAXED);
    }
  });
}

std::tuple<Tensor, Tensor> negatives_logsumexp(
    const Tensor& similarities, const Tensor& row_labels, const Tensor& column_labels,
    int64_t diagonal, OptionalTensor bounds, double scale) {
  const NegativesArgs args(similarities, row_labels, column_labels, diagonal, bounds);
  Tensor out = torch::stable::new_empty(similarities, {similarities.size(0)});
  Tensor kept = torch::stable::new_empty(similarities, {similarities.size(0)}, ScalarType::Long);
  args.is_double() ? logsumexp<double>(args, scale, out, kept)
                   : logsumexp<float>(args, float(scale), out, kept);
  return {out, kept};
}

void negatives_softmax_(
    Tensor similarities, const Tensor& row_labels, const Tensor& column_labels, int64_t diagonal,
    OptionalTensor bounds, double scale, const Tensor& lse, const Tensor& grad) {
  const NegativesArgs args(similarities, row_labels, column_labels, diagonal, bounds);
  const Tensor l = args.check_per_row(lse, "logsumexp"), g = args.check_per_row(grad, "grad");
  args.is_double() ? softmax<double>(args, scale, l, g) : softmax<float>(args, float(scale), l, g);
}

Tensor negatives_histogram(
    const Tensor& similarities, const Tensor& row_labels, const Tensor& column_labels,
    int64_t diagonal, const Tensor& prefixes, int64_t shift) {
  const NegativesArgs args(similarities, row_labels, column_labels, diagonal, std::nullopt);
  check_histogram(prefixes, args, shift);
  const Tensor p = torch::stable::contiguous(prefixes);
  Tensor out = torch::stable::new_zeros(similarities, {p.numel(), 256}, ScalarType::Long);
  args.is_double() ? histogram<double>(args, p, shift, out) : histogram<float>(args, p, shift, out);
  return out;
}

}  // namespace
}  // namespace negvision

STABLE_TORCH_LIBRARY_IMPL(negvision, CPU, m) {
  m.impl("negatives_logsumexp", TORCH_BOX(&negvision::negatives_logsumexp));
  m.impl("negatives_softmax_", TORCH_BOX(&negvision::negatives_softmax_));
  m.impl("negatives_histogram", TORCH_BOX(&negvision::negatives_histogram));
}
