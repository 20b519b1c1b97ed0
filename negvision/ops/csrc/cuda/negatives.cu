// Negative pairs on CUDA: a block processes a part of a row. Sums have a fixed order, only integers are
// added atomically, and bounds and prefixes stay on the device, so that nothing waits for it.
#include <algorithm>
#include <tuple>

#include <torch/csrc/stable/library.h>

#include "../negatives_args.h"
#include "launch.h"

namespace negvision {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kUnrolled = 4;
constexpr int64_t kPart = kThreads * 16;  // columns of a part
constexpr int kBytes = 256;               // values of a byte
constexpr int64_t kMostPrefixes = 8;

// The columns of a row that belong to a block.
struct Part {
  int64_t row, begin, end;

  __device__ explicit Part(const Tile& tile, int64_t parts) : row(blockIdx.x / parts) {
    begin = blockIdx.x % parts * kPart;
    end = begin + kPart < tile.columns ? begin + kPart : tile.columns;
  }
};

int64_t parts_of(const Tile& tile) { return std::max<int64_t>(1, blocks_for(tile.columns, kPart)); }

// Of a part: the number of kept entries, their maximum, and the sum of exp(scale * (v - maximum)). NaN
// is never the maximum; it reaches the sum.
template <typename T>
struct PartSum {
  int64_t kept;
  T maximum;
  double sum;
};

template <typename T>
__device__ PartSum<T> joined(const PartSum<T>& a, const PartSum<T>& b, T scale) {
  if (a.kept == 0) return b;
  if (b.kept == 0) return a;
  const T maximum = a.maximum > b.maximum ? a.maximum : b.maximum;
  const T of_a = a.maximum == maximum ? T(1) : exp_of_negative(scale * (a.maximum - maximum));
  const T of_b = b.maximum == maximum ? T(1) : exp_of_negative(scale * (b.maximum - maximum));
  return {a.kept + b.kept, maximum, a.sum * double(of_a) + b.sum * double(of_b)};
}

__device__ float infinity() { return float_of(0x7f800000u); }

template <typename T>
__device__ Bounds<T> bounds_at(const T* bounds) {
  const T most = T(infinity());
  return bounds ? Bounds<T>{bounds[0], bounds[1]} : Bounds<T>{-most, most};
}

// A thread reads its entries once and rescales its sum when it meets a larger maximum.
template <typename T>
__global__ void sum_parts(
    const T* similarities, Tile tile, int64_t parts, const T* bounds_data, T scale,
    PartSum<T>* out) {
  __shared__ PartSum<T> of_warps[kThreads / kWarp];
  const Bounds<T> bounds = bounds_at(bounds_data);
  const Part part(tile, parts);
  const T* row = similarities + part.row * tile.columns;
  const int32_t label = tile.row_labels[part.row];
  const int64_t first = tile.first_column(part.row);
  PartSum<T> own{0, -T(infinity()), 0.0};
  T sum = T(0);
  for (int64_t j = part.begin + threadIdx.x; j < part.end; j += kUnrolled * kThreads) {
    T values[kUnrolled];
    bool keep[kUnrolled];
    T maximum = own.maximum;
    for (int u = 0; u < kUnrolled; ++u) {
      const int64_t k = j + u * kThreads;
      const bool differ = k < part.end && k >= first && tile.column_labels[k] != label;
      values[u] = differ ? row[k] : T(0);
      keep[u] = differ && bounds.hold(values[u]);
      own.kept += keep[u];
      if (keep[u] && values[u] > maximum) maximum = values[u];
    }
    if (maximum > own.maximum) {
      sum *= exp_of_negative(scale * (own.maximum - maximum));
      own.maximum = maximum;
    }
    for (int u = 0; u < kUnrolled; ++u) {
      if (keep[u]) sum += exp_of_negative(scale * (values[u] - maximum));
    }
  }
  own.sum = double(sum);
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const PartSum<T> other{
        int64_t(__shfl_xor_sync(kAllLanes, (long long)own.kept, step)),
        __shfl_xor_sync(kAllLanes, own.maximum, step), __shfl_xor_sync(kAllLanes, own.sum, step)};
    own = joined(own, other, scale);
  }
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = own;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int w = 1; w < kThreads / kWarp; ++w) own = joined(own, of_warps[w], scale);
  out[blockIdx.x] = own;
}

template <typename T>
__global__ void join_parts(
    const PartSum<T>* sums, int64_t rows, int64_t parts, T scale, T* out, int64_t* kept) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows) return;
  PartSum<T> own = sums[i * parts];
  for (int64_t p = 1; p < parts; ++p) own = joined(own, sums[i * parts + p], scale);
  kept[i] = own.kept;
  out[i] = own.kept == 0 ? own.maximum : T(double(scale) * double(own.maximum) + log(own.sum));
}

template <typename T>
__global__ void softmax_parts(
    T* similarities, Tile tile, int64_t parts, const T* bounds_data, T scale, const T* logsumexp,
    const T* grad) {
  const Bounds<T> bounds = bounds_at(bounds_data);
  const Part part(tile, parts);
  T* row = similarities + part.row * tile.columns;
  const int32_t label = tile.row_labels[part.row];
  const int64_t first = tile.first_column(part.row);
  const T of_row = logsumexp[part.row], factor = scale * grad[part.row];
  for (int64_t j = part.begin + threadIdx.x; j < part.end; j += kThreads) {
    const T v = row[j];
    const bool keep = j >= first && tile.column_labels[j] != label && bounds.hold(v);
    const T off = scale * v - of_row;
    row[j] = keep ? factor * exp_of_negative(off > T(0) ? T(0) : off) : T(0);
  }
}

// A block counts in shared memory, then adds its counts to the total.
template <typename T>
__global__ void count_parts(
    const T* similarities, Tile tile, int64_t parts, const int64_t* prefixes, int count,
    int64_t shift, unsigned long long* out) {
  __shared__ unsigned counts[kMostPrefixes * kBytes];
  for (int b = threadIdx.x; b < count * kBytes; b += kThreads) counts[b] = 0;
  __syncthreads();
  const Part part(tile, parts);
  const T* row = similarities + part.row * tile.columns;
  const int32_t label = tile.row_labels[part.row];
  const int64_t first = tile.first_column(part.row);
  for (int64_t j = part.begin + threadIdx.x; j < part.end; j += kThreads) {
    if (j < first || tile.column_labels[j] == label) continue;
    const uint64_t key = sortable(row[j]);
    const int byte = int((key >> shift) & 255);
    for (int q = 0; q < count; ++q) {
      if (has_prefix(key, prefixes[q], shift)) atomicAdd(&counts[q * kBytes + byte], 1u);
    }
  }
  __syncthreads();
  for (int b = threadIdx.x; b < count * kBytes; b += kThreads) {
    if (counts[b]) atomicAdd(out + b, (unsigned long long)counts[b]);
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
const T* bounds_of(const NegativesArgs& args) {
  return args.bounds ? data_of<T>(*args.bounds) : nullptr;
}

template <typename T>
void launch_logsumexp(const NegativesArgs& args, T scale, Tensor& out, Tensor& kept) {
  const Tile tile = args.tile();
  if (tile.rows == 0) return;
  const cudaStream_t stream = stream_of(args.similarities);
  const int64_t parts = parts_of(tile);
  Tensor scratch = torch::stable::new_empty(
      args.similarities, {tile.rows * parts * int64_t(sizeof(PartSum<T>))}, ScalarType::Byte);
  auto* sums = static_cast<PartSum<T>*>(scratch.mutable_data_ptr());
  sum_parts<<<tile.rows * parts, kThreads, 0, stream>>>(
      data_of<T>(args.similarities), tile, parts, bounds_of<T>(args), scale, sums);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  join_parts<<<blocks_for(tile.rows, kThreads), kThreads, 0, stream>>>(
      sums, tile.rows, parts, scale, data_of<T>(out), data_of<int64_t>(kept));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename T>
void launch_softmax(const NegativesArgs& args, T scale, const Tensor& lse, const Tensor& grad) {
  const Tile tile = args.tile();
  if (tile.rows == 0 || tile.columns == 0) return;
  const int64_t parts = parts_of(tile);
  Tensor similarities = args.similarities;
  softmax_parts<<<tile.rows * parts, kThreads, 0, stream_of(args.similarities)>>>(
      data_of<T>(similarities), tile, parts, bounds_of<T>(args), scale, data_of<T>(lse),
      data_of<T>(grad));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename T>
void launch_histogram(
    const NegativesArgs& args, const Tensor& prefixes, int64_t shift, Tensor& out) {
  const Tile tile = args.tile();
  if (tile.rows == 0 || tile.columns == 0) return;
  const int64_t parts = parts_of(tile);
  count_parts<<<tile.rows * parts, kThreads, 0, stream_of(args.similarities)>>>(
      data_of<T>(args.similarities), tile, parts, data_of<int64_t>(prefixes), int(prefixes.numel()),
      shift, static_cast<unsigned long long*>(out.mutable_data_ptr()));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

std::tuple<Tensor, Tensor> negatives_logsumexp(
    const Tensor& similarities, const Tensor& row_labels, const Tensor& column_labels,
    int64_t diagonal, OptionalTensor bounds, double scale) {
  torch::stable::accelerator::DeviceGuard guard(similarities.get_device_index());
  const NegativesArgs args(similarities, row_labels, column_labels, diagonal, bounds);
  Tensor out = torch::stable::new_empty(similarities, {similarities.size(0)});
  Tensor kept = torch::stable::new_empty(similarities, {similarities.size(0)}, ScalarType::Long);
  args.is_double() ? launch_logsumexp<double>(args, scale, out, kept)
                   : launch_logsumexp<float>(args, float(scale), out, kept);
  return {out, kept};
}

void negatives_softmax_(
    Tensor similarities, const Tensor& row_labels, const Tensor& column_labels, int64_t diagonal,
    OptionalTensor bounds, double scale, const Tensor& lse, const Tensor& grad) {
  torch::stable::accelerator::DeviceGuard guard(similarities.get_device_index());
  const NegativesArgs args(similarities, row_labels, column_labels, diagonal, bounds);
  const Tensor l = args.check_per_row(lse, "logsumexp"), g = args.check_per_row(grad, "grad");
  args.is_double() ? launch_softmax<double>(args, scale, l, g)
                   : launch_softmax<float>(args, float(scale), l, g);
}

Tensor negatives_histogram(
    const Tensor& similarities, const Tensor& row_labels, const Tensor& column_labels,
    int64_t diagonal, const Tensor& prefixes, int64_t shift) {
  torch::stable::accelerator::DeviceGuard guard(similarities.get_device_index());
  const NegativesArgs args(similarities, row_labels, column_labels, diagonal, std::nullopt);
  check_histogram(prefixes, args, shift);
  STD_TORCH_CHECK(
      prefixes.numel() <= kMostPrefixes, "negatives_histogram: ", prefixes.numel(),
      " prefixes, at most ", kMostPrefixes, " on CUDA");
  const Tensor p = torch::stable::contiguous(prefixes);
  Tensor out = torch::stable::new_zeros(similarities, {p.numel(), kBytes}, ScalarType::Long);
  args.is_double() ? launch_histogram<double>(args, p, shift, out)
                   : launch_histogram<float>(args, p, shift, out);
  return out;
}

}  // namespace
}  // namespace negvision

STABLE_TORCH_LIBRARY_IMPL(negvision, CUDA, m) {
  m.impl("negatives_logsumexp", TORCH_BOX(&negvision::negatives_logsumexp));
  m.impl("negatives_softmax_", TORCH_BOX(&negvision::negatives_softmax_));
  m.impl("negatives_histogram", TORCH_BOX(&negvision::negatives_histogram));
}
