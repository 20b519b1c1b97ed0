// Checks that the arguments of all assignments share.
#pragma once

#include <optional>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "similarity.h"

namespace negvision {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// As contiguous, which costs a call of an operator even if nothing is to be done.
inline Tensor in_order(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline void check_device(
    const char* op, const Tensor& tensor, const Tensor& priors, const char* name) {
  STD_TORCH_CHECK(
      tensor.is_cpu() == priors.is_cpu() && tensor.is_cuda() == priors.is_cuda() &&
          tensor.get_device_index() == priors.get_device_index(),
      op, ": ", name, " must be on the device of the priors");
}

inline void check_float_boxes(const char* op, const Tensor& boxes, const char* name) {
  STD_TORCH_CHECK(
      boxes.scalar_type() == ScalarType::Float && boxes.size(boxes.dim() - 1) == 4, op, ": ", name,
      " must be float32 with 4 coordinates in the last dimension");
}

// The similarity of the boxes of an assignment; `scale` is empty for kIoU.
inline Similarity similarity_of(const char* op, int64_t kind, const std::vector<double>& scale) {
  STD_TORCH_CHECK(
      kind >= 0 && kind <= 2 && int64_t(scale.size()) == kind, op,
      ": similarity must be 0, 1 or 2, and scale have as many numbers");
  Similarity similarity{SimilarityKind(kind)};
  for (size_t i = 0; i < scale.size(); ++i) {
    STD_TORCH_CHECK(scale[i] > 0, op, ": scale[", i, "] must be above 0, got ", scale[i]);
    similarity.scale[i] = scale[i];
  }
  return similarity;
}

// The index of the first box of each image among all boxes of the batch: B + 1 numbers.
inline std::vector<int64_t> running_sum(
    const char* op, const std::vector<int64_t>& counts, const char* name) {
  std::vector<int64_t> begin(counts.size() + 1, 0);
  for (size_t i = 0; i < counts.size(); ++i) {
    STD_TORCH_CHECK(counts[i] >= 0, op, ": ", name, "[", i, "] is ", counts[i]);
    begin[i + 1] = begin[i] + counts[i];
  }
  return begin;
}

}  // namespace negvision
