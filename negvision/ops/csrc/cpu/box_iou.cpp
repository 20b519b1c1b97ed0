// Box overlaps and their gradients on the CPU. One thread sums each gradient in a fixed order, so that
// results are deterministic.
#include <algorithm>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "box_iou_args.h"
#include "turns.h"
#include "vectorize.h"

namespace negvision {
namespace {

constexpr int64_t kPairsPerTask = 1 << 15;

int64_t rows_per_task(int64_t row_length) {
  return std::max<int64_t>(1, kPairsPerTask / std::max<int64_t>(1, row_length));
}

template <typename T>
const T* data_of(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <typename T>
T* data_of(Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

// Boxes by coordinate, for vector loads.
template <typename T>
struct Coordinates {
  std::vector<T> x1, y1, x2, y2;

  Coordinates(const T* boxes, int64_t count) : x1(count), y1(count), x2(count), y2(count) {
    for (int64_t j = 0; j < count; ++j) {
      const Box<T> box = load_box(boxes, j);
      x1[j] = box.x1, y1[j] = box.y1, x2[j] = box.x2, y2[j] = box.y2;
    }
  }
};

template <OverlapMode kMode, typename T>
inline __attribute__((always_inline)) void fill(
    Box<T> box, const T* __restrict x1, const T* __restrict y1, const T* __restrict x2,
    const T* __restrict y2, int64_t count, T eps, T* __restrict out) {
  for (int64_t j = 0; j < count; ++j) {
    out[j] = overlap(box, Box<T>{x1[j], y1[j], x2[j], y2[j]}, kMode, eps);
  }
}

// A macro for both types: target_clones does not work on templates.
#define NV_FILL_ROW(T)                                                                       \
  NV_VECTORIZED_WIDE void fill_row(                                                          \
      Box<T> box, const Coordinates<T>& b, OverlapMode mode, T eps, int64_t count, T* out) { \
    const T *x1 = b.x1.data(), *y1 = b.y1.data(), *x2 = b.x2.data(), *y2 = b.y2.data();      \
    switch (mode) {                                                                          \
      case OverlapMode::kIoU:                                                                \
        return fill<OverlapMode::kIoU>(box, x1, y1, x2, y2, count, eps, out);                \
      case OverlapMode::kIoF:                                                                \
        return fill<OverlapMode::kIoF>(box, x1, y1, x2, y2, count, eps, out);                \
      case OverlapMode::kGIoU:                                                               \
        return fill<OverlapMode::kGIoU>(box, x1, y1, x2, y2, count, eps, out);               \
      case OverlapMode::kDIoU:                                                               \
        return fill<OverlapMode::kDIoU>(box, x1, y1, x2, y2, count, eps, out);               \
      case OverlapMode::kCIoU:                                                               \
        return fill<OverlapMode::kCIoU>(box, x1, y1, x2, y2, count, eps, out);               \
    }                                                                                        \
  }
NV_FILL_ROW(float)
NV_FILL_ROW(double)
#undef NV_FILL_ROW

template <typename T>
void pairwise(const BoxIouArgs& args, Tensor& out) {
  const T* a = data_of<T>(args.boxes1);
  const Coordinates<T> b(data_of<T>(args.boxes2), args.m);
  T* o = data_of<T>(out);
  in_turns(0, args.n, rows_per_task(args.m), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      fill_row(load_box(a, i), b, args.mode, T(args.eps), args.m, o + i * args.m);
    }
  });
}

template <typename T>
void aligned(const BoxIouArgs& args, Tensor& out) {
  const T* a = data_of<T>(args.boxes1);
  const T* b = data_of<T>(args.boxes2);
  T* o = data_of<T>(out);
  in_turns(0, args.n, kPairsPerTask, [&](int64_t first, int64_t last) {
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
  in_turns(0, args.n, rows_per_task(args.m), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      for (int64_t j = 0; j < args.m; ++j) {
        accumulate_overlap_grad(
            load_box(a, i), load_box(b, j), true, args.mode, T(args.eps), g[i * args.m + j],
            ga + 4 * i);
      }
    }
  });
  in_turns(0, args.m, rows_per_task(args.n), [&](int64_t first, int64_t last) {
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
  in_turns(0, args.n, kPairsPerTask, [&](int64_t first, int64_t last) {
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
