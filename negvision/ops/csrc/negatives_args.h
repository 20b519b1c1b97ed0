// The arguments of the operators on negative pairs, checked for every device.
#pragma once

#include <limits>
#include <optional>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "negatives_math.h"

namespace negvision {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

struct NegativesArgs {
  Tensor similarities;               // (n, m)
  Tensor row_labels, column_labels;  // (n,), (m,) int32
  OptionalTensor bounds;             // (2,)
  int64_t diagonal;

  NegativesArgs(
      const Tensor& similarities_in, const Tensor& rows_in, const Tensor& columns_in,
      int64_t diagonal_in, const OptionalTensor& bounds_in)
      : similarities(similarities_in),
        row_labels(torch::stable::contiguous(rows_in)),
        column_labels(torch::stable::contiguous(columns_in)),
        diagonal(diagonal_in) {
    STD_TORCH_CHECK(
        similarities.dim() == 2 && similarities.is_contiguous() &&
            (similarities.scalar_type() == ScalarType::Float || is_double()),
        "negatives: similarities must be a contiguous matrix of float32 or float64");
    check_labels(row_labels, similarities.size(0), "row_labels");
    check_labels(column_labels, similarities.size(1), "column_labels");
    if (bounds_in) {
      bounds = torch::stable::contiguous(*bounds_in);
      STD_TORCH_CHECK(
          bounds->numel() == 2 && bounds->scalar_type() == similarities.scalar_type() &&
              on_device(*bounds),
          "negatives: bounds must be two numbers with the dtype and device of the similarities");
    }
  }

  // One number per row, with the dtype of the similarities.
  Tensor check_per_row(const Tensor& values, const char* name) const {
    STD_TORCH_CHECK(
        values.numel() == similarities.size(0) &&
            values.scalar_type() == similarities.scalar_type() && on_device(values),
        "negatives: ", name, " must be ", similarities.size(0),
        " numbers with the dtype and device of the similarities");
    return torch::stable::contiguous(values);
  }

  bool is_double() const { return similarities.scalar_type() == ScalarType::Double; }
  Tile tile() const {
    return {
        similarities.size(0), similarities.size(1), diagonal,
        static_cast<const int32_t*>(row_labels.const_data_ptr()),
        static_cast<const int32_t*>(column_labels.const_data_ptr())};
  }

  bool on_device(const Tensor& tensor) const {
    return tensor.is_cpu() == similarities.is_cpu() && tensor.is_cuda() == similarities.is_cuda() &&
        tensor.get_device_index() == similarities.get_device_index();
  }

 private:
  void check_labels(const Tensor& labels, int64_t count, const char* name) const {
    STD_TORCH_CHECK(
        labels.scalar_type() == ScalarType::Int && labels.numel() == count && on_device(labels),
        "negatives: ", name, " must be ", count, " int32 on the device of the similarities, got ",
        labels.numel());
  }
};

inline void check_histogram(const Tensor& prefixes, const NegativesArgs& args, int64_t shift) {
  const int64_t bits = args.is_double() ? 64 : 32;
  STD_TORCH_CHECK(
      prefixes.scalar_type() == ScalarType::Long && prefixes.dim() == 1 && args.on_device(prefixes),
      "negatives_histogram: prefixes must be int64 on the device of the similarities");
  STD_TORCH_CHECK(
      shift >= 0 && shift <= bits - 8 && shift % 8 == 0,
      "negatives_histogram: shift must be a multiple of 8 below ", bits, ", got ", shift);
}

// Whether the bits above the 8 counted bits equal `prefix`.
NV_HD bool has_prefix(uint64_t key, int64_t prefix, int64_t shift) {
  return shift + 8 >= 64 ? true : (key >> (shift + 8)) == uint64_t(prefix);
}

}  // namespace negvision
