// Box overlaps and their gradients on CUDA. One warp sums each gradient in a fixed order, without atomic
// additions.
#include <tuple>

#include <torch/csrc/stable/library.h>

#include "../box_iou_args.h"
#include "launch.h"

namespace negvision {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;

template <typename T>
__global__ void pairwise(
    const T* a, const T* b, int64_t n, int64_t m, OverlapMode mode, T eps, T* out) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n * m) out[i] = overlap(load_box(a, i / m), load_box(b, i % m), mode, eps);
}

template <typename T>
__global__ void aligned(const T* a, const T* b, int64_t n, OverlapMode mode, T eps, T* out) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) out[i] = overlap(load_box(a, i), load_box(b, i), mode, eps);
}

// One warp per box that receives a gradient; its lanes share the pairs of that box.
template <typename T>
__global__ void pairwise_backward(
    const T* grad, const T* a, const T* b, int64_t n, int64_t m, bool wrt_a, OverlapMode mode,
    T eps, T* out) {
  const int64_t own = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int64_t others = wrt_a ? m : n;
  if (own >= (wrt_a ? n : m)) return;
  T sum[4] = {T(0), T(0), T(0), T(0)};
  for (int64_t other = lane; other < others; other += kWarp) {
    const int64_t i = wrt_a ? own : other, j = wrt_a ? other : own;
    accumulate_overlap_grad(load_box(a, i), load_box(b, j), wrt_a, mode, eps, grad[i * m + j], sum);
  }
  for (int c = 0; c < 4; ++c) {
    for (int step = kWarp / 2; step > 0; step /= 2) {
      sum[c] += __shfl_xor_sync(0xffffffffu, sum[c], step);
    }
    if (lane == 0) out[4 * own + c] = sum[c];
  }
}

template <typename T>
__global__ void aligned_backward(
    const T* grad, const T* a, const T* b, int64_t n, OverlapMode mode, T eps, T* grad_a,
    T* grad_b) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const Box<T> p = load_box(a, i), q = load_box(b, i);
  T of_p[4] = {T(0), T(0), T(0), T(0)}, of_q[4] = {T(0), T(0), T(0), T(0)};
  accumulate_overlap_grad(p, q, true, mode, eps, grad[i], of_p);
  accumulate_overlap_grad(p, q, false, mode, eps, grad[i], of_q);
  for (int c = 0; c < 4; ++c) {
    grad_a[4 * i + c] = of_p[c];
    grad_b[4 * i + c] = of_q[c];
  }
}

template <typename T>
const T* data_of(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <typename T>
T* data_of(Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

template <typename T>
void launch_forward(const BoxIouArgs& args, bool is_aligned, Tensor& out) {
  const cudaStream_t stream = stream_of(args.boxes1);
  const int64_t count = is_aligned ? args.n : args.n * args.m;
  if (count == 0) return;
  const int64_t blocks = blocks_for(count, kThreads);
  const T* a = data_of<T>(args.boxes1);
  const T* b = data_of<T>(args.boxes2);
  if (is_aligned) {
    aligned<<<blocks, kThreads, 0, stream>>>(a, b, args.n, args.mode, T(args.eps), data_of<T>(out));
  } else {
    pairwise<<<blocks, kThreads, 0, stream>>>(
        a, b, args.n, args.m, args.mode, T(args.eps), data_of<T>(out));
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename T>
void launch_backward(
    const BoxIouArgs& args, bool is_aligned, const Tensor& grad, Tensor& grad1, Tensor& grad2) {
  const cudaStream_t stream = stream_of(args.boxes1);
  const T* a = data_of<T>(args.boxes1);
  const T* b = data_of<T>(args.boxes2);
  const T* g = data_of<T>(grad);
  if (is_aligned) {
    if (args.n == 0) return;
    aligned_backward<<<blocks_for(args.n, kThreads), kThreads, 0, stream>>>(
        g, a, b, args.n, args.mode, T(args.eps), data_of<T>(grad1), data_of<T>(grad2));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    return;
  }
  for (const bool wrt_a : {true, false}) {
    const int64_t rows = wrt_a ? args.n : args.m;
    if (rows == 0) continue;
    pairwise_backward<<<blocks_for(rows * kWarp, kThreads), kThreads, 0, stream>>>(
        g, a, b, args.n, args.m, wrt_a, args.mode, T(args.eps), data_of<T>(wrt_a ? grad1 : grad2));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

Tensor forward(const BoxIouArgs& args, bool is_aligned) {
  torch::stable::accelerator::DeviceGuard guard(args.boxes1.get_device_index());
  Tensor out = is_aligned ? torch::stable::new_empty(args.boxes1, {args.n})
                          : torch::stable::new_empty(args.boxes1, {args.n, args.m});
  args.is_double() ? launch_forward<double>(args, is_aligned, out)
                   : launch_forward<float>(args, is_aligned, out);
  return out;
}

std::tuple<Tensor, Tensor> backward(const BoxIouArgs& args, bool is_aligned, const Tensor& grad) {
  torch::stable::accelerator::DeviceGuard guard(args.boxes1.get_device_index());
  const Tensor g = torch::stable::contiguous(grad);
  Tensor grad1 = torch::stable::new_empty(args.boxes1, {args.n, 4});
  Tensor grad2 = torch::stable::new_empty(args.boxes2, {args.m, 4});
  args.is_double() ? launch_backward<double>(args, is_aligned, g, grad1, grad2)
                   : launch_backward<float>(args, is_aligned, g, grad1, grad2);
  return {grad1, grad2};
}

Tensor pairwise_box_iou(const Tensor& boxes1, const Tensor& boxes2, int64_t mode, double eps) {
  return forward(BoxIouArgs(boxes1, boxes2, mode, eps, false), false);
}
Tensor aligned_box_iou(const Tensor& boxes1, const Tensor& boxes2, int64_t mode, double eps) {
  return forward(BoxIouArgs(boxes1, boxes2, mode, eps, true), true);
}
std::tuple<Tensor, Tensor> pairwise_box_iou_backward(
    const Tensor& grad, const Tensor& boxes1, const Tensor& boxes2, int64_t mode, double eps) {
  return backward(BoxIouArgs(boxes1, boxes2, mode, eps, false), false, grad);
}
std::tuple<Tensor, Tensor> aligned_box_iou_backward(
    const Tensor& grad, const Tensor& boxes1, const Tensor& boxes2, int64_t mode, double eps) {
  return backward(BoxIouArgs(boxes1, boxes2, mode, eps, true), true, grad);
}

}  // namespace
}  // namespace negvision

STABLE_TORCH_LIBRARY_IMPL(negvision, CUDA, m) {
  m.impl("pairwise_box_iou", TORCH_BOX(&negvision::pairwise_box_iou));
  m.impl("aligned_box_iou", TORCH_BOX(&negvision::aligned_box_iou));
  m.impl("pairwise_box_iou_backward", TORCH_BOX(&negvision::pairwise_box_iou_backward));
  m.impl("aligned_box_iou_backward", TORCH_BOX(&negvision::aligned_box_iou_backward));
}
