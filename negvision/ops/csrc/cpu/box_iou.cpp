// Box overlaps and their gradients on the CPU. Each gradient is summed by one thread in one order,
// so that it is the same from run to run.
#include <algorithm>
#include <tuple>

#include <torch/csrc/stable/library.h>

#include "box_iou_args.h"

namespace negvision {
namespace {

using torch::stable::parallel_for;

constexpr int64_t kPairsPerTask = 4096;

int64_t rows_per_task(int64_t row_length) {
  return std::max<int64_t>(1, kPairsPerTask / std::max<int64_t>(1, row_length));
}

template <typename T>
const T* data_of(const Tensor& t) { return static_cast<const T*>(t.const_data_ptr()); }
template <typename T>
T* data_of(Tensor& t) { return static_cast<T*>(t.mutable_data_ptr()); }

template <typename T>
void pairwise(const BoxIouArgs& args, Tensor& out) {
  const T* a = data_of<T>(args.boxes1);
  const T* b = data_of<T>(args.boxes2);
  T* o = data_of<T>(out);
  parallel_for(0, args.n, rows_per_task(args.m), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const Box<T> box = load_box(a, i);
      for (int64_t j = 0; j < args.m; ++j) {
        o[i * args.m + j] = overlap(box, load_box(b, j), args.mode, T(args.eps));
      }
    }
  });
}

template <typename T>
void aligned(const BoxIouArgs& args, Tensor& out) {
  const T* a = data_of<T>(args.boxes1);
  const T* b = data_of<T>(args.boxes2);
  T* o = data_of<T>(out);
  parallel_for(0, args.n, kPairsPerTask, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      o[i] = overlap(load_box(a, i), load_box(b, i), args.mode, T(args.eps));
    }
  });
}

template <typename T>
void pairwise_backward(const BoxIouArgs& args, const Tensor& grad, Tensor& grad1, Tensor& grad2) {
  const T* a = data_of<T>(args.boxes1);
  const T* b = data_of<T>(args.boxes2);
  const T* g = data_of<T>(grad);
  T* ga = data_of<T>(grad1);
  T* gb = data_of<T>(grad2);
  parallel_for(0, args.n, rows_per_task(args.m), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      for (int64_t j = 0; j < args.m; ++j) {
        accumulate_overlap_grad(
            load_box(a, i), load_box(b, j), true, args.mode, T(args.eps), g[i * args.m + j],
            ga + 4 * i);
      }
    }
  });
  parallel_for(0, args.m, rows_per_task(args.n), [&](int64_t first, int64_t last) {
    for (int64_t j = first; j < last; ++j) {
      for (int64_t i = 0; i < args.n; ++i) {
        accumulate_overlap_grad(
            load_box(a, i), load_box(b, j), false, args.mode, T(args.eps), g[i * args.m + j],
            gb + 4 * j);
      }
    }
  });
}

template <typename T>
void aligned_backward(const BoxIouArgs& args, const Tensor& grad, Tensor& grad1, Tensor& grad2) {
  const T* a = data_of<T>(args.boxes1);
  const T* b = data_of<T>(args.boxes2);
  const T* g = data_of<T>(grad);
  T* ga = data_of<T>(grad1);
  T* gb = data_of<T>(grad2);
  parallel_for(0, args.n, kPairsPerTask, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const Box<T> p = load_box(a, i), q = load_box(b, i);
      accumulate_overlap_grad(p, q, true, args.mode, T(args.eps), g[i], ga + 4 * i);
      accumulate_overlap_grad(p, q, false, args.mode, T(args.eps), g[i], gb + 4 * i);
    }
  });
}

Tensor pairwise_box_iou(const Tensor& boxes1, const Tensor& boxes2, int64_t mode, double eps) {
  const BoxIouArgs args(boxes1, boxes2, mode, eps, false);
  Tensor out = torch::stable::new_empty(args.boxes1, {args.n, args.m});
  args.is_double() ? pairwise<double>(args, out) : pairwise<float>(args, out);
  return out;
}

Tensor aligned_box_iou(const Tensor& boxes1, const Tensor& boxes2, int64_t mode, double eps) {
  const BoxIouArgs args(boxes1, boxes2, mode, eps, true);
  Tensor out = torch::stable::new_empty(args.boxes1, {args.n});
  args.is_double() ? aligned<double>(args, out) : aligned<float>(args, out);
  return out;
}

std::tuple<Tensor, Tensor> pairwise_box_iou_backward(
    const Tensor& grad, const Tensor& boxes1, const Tensor& boxes2, int64_t mode, double eps) {
  const BoxIouArgs args(boxes1, boxes2, mode, eps, false);
  const Tensor g = torch::stable::contiguous(grad);
  Tensor grad1 = torch::stable::new_zeros(args.boxes1, {args.n, 4});
  Tensor grad2 = torch::stable::new_zeros(args.boxes2, {args.m, 4});
  args.is_double() ? pairwise_backward<double>(args, g, grad1, grad2)
                   : pairwise_backward<float>(args, g, grad1, grad2);
  return {grad1, grad2};
}

std::tuple<Tensor, Tensor> aligned_box_iou_backward(
    const Tensor& grad, const Tensor& boxes1, const Tensor& boxes2, int64_t mode, double eps) {
  const BoxIouArgs args(boxes1, boxes2, mode, eps, true);
  const Tensor g = torch::stable::contiguous(grad);
  Tensor grad1 = torch::stable::new_zeros(args.boxes1, {args.n, 4});
  Tensor grad2 = torch::stable::new_zeros(args.boxes2, {args.n, 4});
  args.is_double() ? aligned_backward<double>(args, g, grad1, grad2)
                   : aligned_backward<float>(args, g, grad1, grad2);
  return {grad1, grad2};
}

}  // namespace
}  // namespace negvision

STABLE_TORCH_LIBRARY_IMPL(negvision, CPU, m) {
  m.impl("pairwise_box_iou", TORCH_BOX(&negvision::pairwise_box_iou));
  m.impl("aligned_box_iou", TORCH_BOX(&negvision::aligned_box_iou));
  m.impl("pairwise_box_iou_backward", TORCH_BOX(&negvision::pairwise_box_iou_backward));
  m.impl("aligned_box_iou_backward", TORCH_BOX(&negvision::aligned_box_iou_backward));
}
