// The arguments of the box overlap operators, checked for every device.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "box_math.h"

namespace negvision {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

struct BoxIouArgs {
  Tensor boxes1, boxes2;
  int64_t n, m;
  OverlapMode mode;
  double eps;

  BoxIouArgs(const Tensor& a, const Tensor& b, int64_t mode_in, double eps_in, bool aligned)
      : boxes1(torch::stable::contiguous(a)),
        boxes2(torch::stable::contiguous(b)),
        n(0),
        m(0),
        mode(OverlapMode(mode_in)),
        eps(eps_in) {
    STD_TORCH_CHECK(
        a.dim() == 2 && a.size(1) == 4 && b.dim() == 2 && b.size(1) == 4,
        "box_iou: boxes must be of shape (N, 4) and (M, 4)");
    const auto type = a.scalar_type();
    STD_TORCH_CHECK(
        type == b.scalar_type() && (type == ScalarType::Float || type == ScalarType::Double),
        "box_iou: boxes must both be float32 or both float64");
    STD_TORCH_CHECK(
        a.is_cpu() == b.is_cpu() && a.is_cuda() == b.is_cuda() &&
            a.get_device_index() == b.get_device_index(),
        "box_iou: both sets of boxes must be on one device");
    STD_TORCH_CHECK(mode_in >= 0 && mode_in <= 4, "box_iou: mode must be 0 to 4, got ", mode_in);
    n = a.size(0);
    m = b.size(0);
    STD_TORCH_CHECK(
        !aligned || n == m, "box_iou: aligned boxes must have equal counts, got ", n, " and ", m);
  }

  bool is_double() const { return boxes1.scalar_type() == ScalarType::Double; }
};

}  // namespace negvision
