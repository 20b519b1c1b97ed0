// Negative pairs on the CPU: threads process rows, with vector loads.
#include <algorithm>
#include <cmath>
#include <vector>

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/stable/library.h>

#include "../negatives_args.h"
#include "turns.h"
#include "vectorize.h"

namespace negvision {
namespace {

constexpr int64_t kEntriesPerTask = 1 << 17;
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
#define NV_ROW_FUNCTIONS(T)                                                                        \
  NV_VECTORIZED static T row_maximum(                                                              \
      const T* row, const int32_t* labels, int64_t count, int32_t label, Bounds<T> bounds,         \
      int64_t* kept) {                                                                             \
    const T none = -std::numeric_limits<T>::infinity();                                            \
    T most[kLanes];                                                                                \
    int32_t counts[kLanes] = {};                                                                   \
    for (int64_t l = 0; l < kLanes; ++l) most[l] = none;                                           \
    int64_t j = 0;                                                                                 \
    for (; j + kLanes <= count; j += kLanes) {                                                     \
      for (int64_t l = 0; l < kLanes; ++l) {                                                       \
        const T v = row[j + l];                                                                    \
        const bool keep = (labels[j + l] != label) & bounds.hold(v);                               \
        counts[l] += keep;                                                                         \
        most[l] = keep && v > most[l] ? v : most[l];                                               \
      }                                                                                            \
    }                                                                                              \
    T maximum = none;                                                                              \
    int64_t total = 0;                                                                             \
    for (int64_t l = 0; l < kLanes; ++l) {                                                         \
      maximum = std::max(maximum, most[l]);                                                        \
      total += counts[l];                                                                          \
    }                                                                                              \
    for (; j < count; ++j) {                                                                       \
      if (labels[j] == label || !bounds.hold(row[j])) continue;                                    \
      ++total;                                                                                     \
      maximum = std::max(maximum, row[j]);                                                         \
    }                                                                                              \
    *kept = total;                                                                                 \
    return maximum;                                                                                \
  }                                                                                                \
                                                                                                   \
  NV_VECTORIZED static double row_sum(                                                             \
      const T* row, const int32_t* labels, int64_t count, int32_t label, Bounds<T> bounds,         \
      T scale, T maximum) {                                                                        \
    T sums[kLanes] = {};                                                                           \
    int64_t j = 0;                                                                                 \
    for (; j + kLanes <= count; j += kLanes) {                                                     \
      for (int64_t l = 0; l < kLanes; ++l) {                                                       \
        const T v = row[j + l];                                                                    \
        const T e = exp_of_negative(scale * (v - maximum));                                        \
        sums[l] += (labels[j + l] != label) & bounds.hold(v) ? e : T(0);                           \
      }                                                                                            \
    }                                                                                              \
    double total = 0;                                                                              \
    for (int64_t l = 0; l < kLanes; ++l) total += double(sums[l]);                                 \
    for (; j < count; ++j) {                                                                       \
      if (labels[j] == label || !bounds.hold(row[j])) continue;                                    \
      total += double(exp_of_negative(scale * (row[j] - maximum)));                                \
    }                                                                                              \
    return total;                                                                                  \
  }                                                                                                \
                                                                                                   \
  NV_VECTORIZED static T row_product(const T* a, const T* b, int64_t count) {                      \
    T sums[kLanes] = {}, total = 0;                                                                \
    int64_t j = 0;                                                                                 \
    for (; j + kLanes <= count; j += kLanes) {                                                     \
      for (int64_t l = 0; l < kLanes; ++l) sums[l] += a[j + l] * b[j + l];                         \
    }                                                                                              \
    for (int64_t l = 0; l < kLanes; ++l) total += sums[l];                                         \
    for (; j < count; ++j) total += a[j] * b[j];                                                   \
    return total;                                                                                  \
  }                                                                                                \
                                                                                                   \
  NV_VECTORIZED static void divide_row(const T* row, T by, int64_t count, T* out) {                \
    for (int64_t j = 0; j < count; ++j) out[j] = row[j] / by;                                      \
  }                                                                                                \
                                                                                                   \
  /* Of a gradient, what rotates the unit vector, divided by the norm before it was one. */        \
  NV_VECTORIZED static void keep_rotation(T* row, const T* unit, T along, T norm, int64_t count) { \
    for (int64_t j = 0; j < count; ++j) row[j] = (row[j] - along * unit[j]) / norm;                \
  }                                                                                                \
                                                                                                   \
  NV_VECTORIZED static void add_row(const T* row, int64_t count, T* sum) {                         \
    for (int64_t j = 0; j < count; ++j) sum[j] += row[j];                                          \
  }                                                                                                \
                                                                                                   \
  NV_VECTORIZED static void row_softmax(                                                           \
      T* row, const int32_t* labels, int64_t count, int32_t label, Bounds<T> bounds, T scale,      \
      T logsumexp, T grad) {                                                                       \
    for (int64_t j = 0; j < count; ++j) {                                                          \
      const T v = row[j];                                                                          \
      const T off = scale * v - logsumexp;                                                         \
      const T e = grad * exp_of_negative(off > T(0) ? T(0) : off);                                 \
      row[j] = (labels[j] != label) & bounds.hold(v) ? e : T(0);                                   \
    }                                                                                              \
  }

NV_ROW_FUNCTIONS(float)
NV_ROW_FUNCTIONS(double)
#undef NV_ROW_FUNCTIONS

template <typename T>
T row_logsumexp(
    const T* row, const int32_t* labels, int64_t count, int32_t label, Bounds<T> bounds, T scale,
    int64_t* kept) {
  const T maximum = row_maximum(row, labels, count, label, bounds, kept);
  if (*kept == 0) return -std::numeric_limits<T>::infinity();
  const double sum = row_sum(row, labels, count, label, bounds, scale, maximum);
  return T(double(scale) * double(maximum) + std::log(sum));
}

template <typename T>
void logsumexp(const NegativesArgs& args, T scale, Tensor& out, Tensor& kept) {
  const Tile tile = args.tile();
  const Bounds<T> bounds = bounds_of<T>(args);
  const T* data = static_cast<const T*>(args.similarities.const_data_ptr());
  T* values = static_cast<T*>(out.mutable_data_ptr());
  int64_t* counts = static_cast<int64_t*>(kept.mutable_data_ptr());
  in_turns(0, tile.rows, rows_per_task(tile), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = tile.first_column(i);
      values[i] = row_logsumexp(
          data + i * tile.columns + begin, tile.column_labels + begin, tile.columns - begin,
          tile.row_labels[i], bounds, scale, counts + i);
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
  in_turns(0, tile.rows, rows_per_task(tile), [&](int64_t first, int64_t last) {
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
  in_turns(0, tile.rows, rows_per_task(tile), [&](int64_t first, int64_t last) {
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

// A part of a tensor's rows, or of a scratch tensor's first numbers.
Tensor part(const Tensor& of, int64_t first, int64_t count) {
  Tensor all = of;
  return torch::stable::narrow(all, 0, first, count);
}

// out = a b, or out + a b. In one thread: within a parallel region there are no regions of the product.
void multiply(Tensor out, const Tensor& a, const Tensor& b, bool add = false) {
  TORCH_ERROR_CODE_CHECK(
      add ? aoti_torch_cpu_addmm_out(out.get(), out.get(), a.get(), b.get(), 1, 1)
          : aoti_torch_cpu_mm_out(out.get(), a.get(), b.get()));
}

// The log-sums of a batch over classes, in tiles of all rows and some classes. Threads take tiles in
// turns and multiply the matrices of theirs alone, so that nothing waits for a thread within a tile.
template <typename T>
class Classes {
 public:
  Classes(
      const Tensor& embeddings, const Tensor& centers, const Tensor& labels,
      const Tensor& class_ids, double scale, int64_t columns)
      : embeddings_(torch::stable::contiguous(embeddings)),
        centers_(torch::stable::contiguous(centers)),
        labels_(torch::stable::contiguous(labels)),
        ids_(torch::stable::contiguous(class_ids)),
        scale_(T(scale)),
        rows_(embeddings.size(0)),
        size_(embeddings.size(1)),
        classes_(centers.size(0)),
        columns_(std::min(columns, std::max<int64_t>(1, classes_))),
        tiles_((classes_ + columns_ - 1) / columns_) {}

  Tensor logsumexp() const {
    Tensor out = torch::stable::new_empty(embeddings_, {rows_});
    T* values = static_cast<T*>(out.mutable_data_ptr());
    std::vector<T> of_tile(rows_ * tiles_);
    products_in_turns(tiles_, [&](const auto& next) {
      Scratch scratch(*this);
      for (int64_t t; (t = next()) < tiles_;) {
        const Piece piece = similarities(t, scratch);
        int64_t kept;
        for (int64_t i = 0; i < rows_; ++i) {
          of_tile[i * tiles_ + t] = row_logsumexp(
              piece.row(i), ids() + piece.begin, piece.count, labels()[i], kAll, scale_, &kept);
        }
      }
    });
    for (int64_t i = 0; i < rows_; ++i) values[i] = joined(of_tile.data() + i * tiles_);
    return out;
  }

  // Sums over classes are summed by groups of tiles, then in the order of the groups, so that the number
  // of threads does not change them.
  std::tuple<Tensor, Tensor> gradients(
      const Tensor& logsumexp, const Tensor& grad, bool with_centers) const {
    Tensor of_embeddings = torch::stable::new_zeros(embeddings_, {rows_, size_});
    Tensor of_centers = torch::stable::new_zeros(centers_, {with_centers ? classes_ : 0, size_});
    if (rows_ * classes_ * size_ == 0) return {of_embeddings, of_centers};
    const int64_t affordable = kPartialSums / (rows_ * size_);
    const int64_t groups = std::min(tiles_, std::clamp(affordable, kFewestGroups, kMostGroups));
    Tensor partial = torch::stable::new_empty(embeddings_, {groups * rows_, size_});
    const T* lse = static_cast<const T*>(logsumexp.const_data_ptr());
    const T* grad_of = static_cast<const T*>(grad.const_data_ptr());
    products_in_turns(groups, [&](const auto& next) {
      Scratch scratch(*this);
      for (int64_t g; (g = next()) < groups;) {
        const int64_t begin = g * tiles_ / groups, end = (g + 1) * tiles_ / groups;
        for (int64_t t = begin; t < end; ++t) {
          const Piece piece = similarities(t, scratch);
          for (int64_t i = 0; i < rows_; ++i) {
            row_softmax(
                piece.row(i), ids() + piece.begin, piece.count, labels()[i], kAll, scale_, lse[i],
                scale_ * grad_of[i]);
          }
          multiply(part(partial, g * rows_, rows_), piece.tile, piece.unit, t > begin);
          if (with_centers) {
            turn_centers(piece, scratch.norm, part(of_centers, piece.begin, piece.count));
          }
        }
      }
    });
    const T* from = static_cast<const T*>(partial.const_data_ptr());
    T* sum = static_cast<T*>(of_embeddings.mutable_data_ptr());
    in_turns(0, rows_, kEntriesPerTask / groups / size_ + 1, [&](int64_t first, int64_t last) {
      for (int64_t g = 0; g < groups; ++g) {
        add_row(from + (g * rows_ + first) * size_, (last - first) * size_, sum + first * size_);
      }
    });
    return {of_embeddings, of_centers};
  }

 private:
  static constexpr Bounds<T> kAll{
      -std::numeric_limits<T>::infinity(), std::numeric_limits<T>::infinity()};
  static constexpr int64_t kPartialSums = 1 << 24, kFewestGroups = 4, kMostGroups = 32;

  struct Scratch {
    Tensor unit, tile;
    std::vector<T> norm;
    explicit Scratch(const Classes& of)
        : unit(torch::stable::new_empty(of.centers_, {of.columns_, of.size_})),
          tile(torch::stable::new_empty(of.embeddings_, {of.rows_ * of.columns_})),
          norm(of.columns_) {}
  };

  // The similarities of all rows with classes from `begin` on, and the unit vectors of these.
  struct Piece {
    int64_t begin, count;
    Tensor unit, tile;
    T* data;
    T* row(int64_t i) const { return data + i * count; }
  };

  const int32_t* labels() const { return static_cast<const int32_t*>(labels_.const_data_ptr()); }
  const int32_t* ids() const { return static_cast<const int32_t*>(ids_.const_data_ptr()); }

  Piece similarities(int64_t t, Scratch& scratch) const {
    const int64_t begin = t * columns_, count = std::min(columns_, classes_ - begin);
    const T* centers = static_cast<const T*>(centers_.const_data_ptr()) + begin * size_;
    T* unit = static_cast<T*>(scratch.unit.mutable_data_ptr());
    for (int64_t j = 0; j < count; ++j) {
      const T* center = centers + j * size_;
      const T norm = std::sqrt(row_product(center, center, size_));
      scratch.norm[j] = norm < T(1e-12) ? T(1e-12) : norm;  // keeps NaN
      divide_row(center, scratch.norm[j], size_, unit + j * size_);
    }
    Piece piece{
        begin, count, part(scratch.unit, 0, count),
        torch::stable::view(part(scratch.tile, 0, rows_ * count), {rows_, count}),
        static_cast<T*>(scratch.tile.mutable_data_ptr())};
    multiply(piece.tile, embeddings_, torch::stable::transpose(piece.unit, 0, 1));
    return piece;
  }

  // The gradient of the centers, through their normalization.
  void turn_centers(const Piece& piece, const std::vector<T>& norm, Tensor out) const {
    multiply(out, torch::stable::transpose(piece.tile, 0, 1), embeddings_);
    T* row = static_cast<T*>(out.mutable_data_ptr());
    const T* unit = static_cast<const T*>(piece.unit.const_data_ptr());
    for (int64_t j = 0; j < piece.count; ++j, row += size_, unit += size_) {
      keep_rotation(row, unit, row_product(row, unit, size_), norm[j], size_);
    }
  }

  // The log-sum of one row over the tiles.
  T joined(const T* values) const {
    T most = -std::numeric_limits<T>::infinity();
    double sum = 0;
    for (int64_t t = 0; t < tiles_; ++t) {
      if (!(values[t] <= most) && most == most) most = values[t];  // the first NaN, if any
    }
    if (!std::isfinite(most)) return most;
    for (int64_t t = 0; t < tiles_; ++t) sum += std::exp(double(values[t]) - double(most));
    return T(double(most) + std::log(sum));
  }

  const Tensor embeddings_, centers_, labels_, ids_;
  const T scale_;
  const int64_t rows_, size_, classes_, columns_, tiles_;
};

void check_classes(
    const Tensor& embeddings, const Tensor& centers, const Tensor& labels, const Tensor& class_ids,
    int64_t columns) {
  STD_TORCH_CHECK(
      embeddings.dim() == 2 && centers.dim() == 2 && embeddings.size(1) == centers.size(1) &&
          embeddings.scalar_type() == centers.scalar_type() &&
          (embeddings.scalar_type() == ScalarType::Float ||
           embeddings.scalar_type() == ScalarType::Double),
      "class_logsumexp: embeddings (N, D) and centers (C, D) must both be float32 or float64");
  STD_TORCH_CHECK(
      labels.scalar_type() == ScalarType::Int && labels.numel() == embeddings.size(0) &&
          class_ids.scalar_type() == ScalarType::Int && class_ids.numel() == centers.size(0),
      "class_logsumexp: labels and class_ids must be int32, one for each row and center");
  STD_TORCH_CHECK(columns >= 1, "class_logsumexp: columns must be at least 1, got ", columns);
}

Tensor class_logsumexp(
    const Tensor& embeddings, const Tensor& centers, const Tensor& labels, const Tensor& class_ids,
    double scale, int64_t columns) {
  check_classes(embeddings, centers, labels, class_ids, columns);
  const auto run = [&](auto classes) { return classes.logsumexp(); };
  return embeddings.scalar_type() == ScalarType::Double
      ? run(Classes<double>(embeddings, centers, labels, class_ids, scale, columns))
      : run(Classes<float>(embeddings, centers, labels, class_ids, scale, columns));
}

std::tuple<Tensor, Tensor> class_logsumexp_backward(
    const Tensor& embeddings, const Tensor& centers, const Tensor& labels, const Tensor& class_ids,
    double scale, int64_t columns, const Tensor& logsumexp, const Tensor& grad, bool with_centers) {
  check_classes(embeddings, centers, labels, class_ids, columns);
  for (const Tensor* each : {&logsumexp, &grad}) {
    STD_TORCH_CHECK(
        each->numel() == embeddings.size(0) && each->is_contiguous() &&
            each->scalar_type() == embeddings.scalar_type(),
        "class_logsumexp_backward: logsumexp and grad must have a number for each embedding");
  }
  const auto run = [&](auto classes) { return classes.gradients(logsumexp, grad, with_centers); };
  return embeddings.scalar_type() == ScalarType::Double
      ? run(Classes<double>(embeddings, centers, labels, class_ids, scale, columns))
      : run(Classes<float>(embeddings, centers, labels, class_ids, scale, columns));
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
  m.impl("class_logsumexp", TORCH_BOX(&negvision::class_logsumexp));
  m.impl("class_logsumexp_backward", TORCH_BOX(&negvision::class_logsumexp_backward));
  m.impl("negatives_logsumexp", TORCH_BOX(&negvision::negatives_logsumexp));
  m.impl("negatives_softmax_", TORCH_BOX(&negvision::negatives_softmax_));
  m.impl("negatives_histogram", TORCH_BOX(&negvision::negatives_histogram));
}
