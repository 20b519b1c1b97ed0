// ATSS assignment on CUDA: a block describes a level, a warp processes a box, and an atomic maximum
// settles claims on priors. Box counts are kernel arguments, so nothing is copied from the host and
// nothing waits for the device.
#include <algorithm>

#include <torch/csrc/stable/library.h>

#include "../atss_args.h"
#include "../nearest_search.h"
#include "cuda/batches.h"
#include "launch.h"

namespace negvision {
namespace {

constexpr int kMostLevels = 64;

struct LevelBegins {
  int count;
  int64_t begin[kMostLevels + 1];
};

__device__ int64_t block_min(int64_t value, int64_t* scratch) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value = min_of(value, int64_t(__shfl_xor_sync(kAllLanes, (long long)value, step)));
  }
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = value;
  __syncthreads();
  for (int w = 0; w < kThreads / kWarp; ++w) value = min_of(value, scratch[w]);
  __syncthreads();
  return value;
}

// One block per level of an image.
__global__ void describe_levels(
    const float* priors, int64_t num_priors, LevelBegins begins, Level* levels) {
  __shared__ int64_t scratch[kThreads / kWarp];
  const int l = blockIdx.x;
  const float* own = priors + int64_t(blockIdx.y) * num_priors * 4;
  const int64_t begin = begins.begin[l], end = begins.begin[l + 1];
  int64_t location = end, row = end;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    if (location == end && leaves_location(own, begin, i)) location = i;
    if (row == end && leaves_row(own, begin, i)) row = i;
  }
  location = block_min(location, scratch);
  row = block_min(row, scratch);
  Level level = guess_grid(begin, end - begin, location - begin, row - begin);
  if (level.row_length > 0) {
    level.deviation = allowed_deviation(own, level);
    const int64_t n = level.per_location, row_step = level.row_length * n;
    bool is_grid = true;
    for (int64_t i = threadIdx.x; i < level.size; i += kThreads) {
      const int64_t r = i / row_step, c = i % row_step / n;
      const float column = column_of(own, level, c), row_y = row_of(own, level, r);
      is_grid &= is_in_place(center(own, begin + i), column, row_y, level.deviation);
      // Rows and columns out of order are no grid either.
      if (r == 0 && c > 0) is_grid &= column_of(own, level, c - 1) < column;
      if (c == 0 && r > 0) is_grid &= row_of(own, level, r - 1) < row_y;
    }
    if (block_min(is_grid, scratch) == 0) level.row_length = 0;
  }
  if (threadIdx.x == 0) levels[int64_t(blockIdx.y) * begins.count + l] = level;
}

__global__ void mark_states(
    const float* priors, bool shared_priors, int64_t num_priors, const bool* valid,
    const float* ignored, ImageBegins begins, float ignore_iof_thr, uint8_t* state) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= num_priors * begins.count) return;
  const int64_t image = i / num_priors;
  bool is_excluded = valid && !valid[i];
  if (!is_excluded && ignored) {
    is_excluded = is_ignored(
        priors + (shared_priors ? 0 : image * num_priors * 4), i % num_priors,
        ignored + 4 * begins.begin[image], begins.begin[image + 1] - begins.begin[image],
        ignore_iof_thr);
  }
  state[i] = is_excluded ? kExcluded : kCandidate;
}

// The k nearest of a level without a grid, found by a full warp in k rounds: each finds the minimum
// after the last one.
__device__ int search_all_by_warp(
    const float* priors, const uint8_t* state, const Level& level, Point target, int k,
    float* distance, int64_t* index) {
  const int lane = threadIdx.x % kWarp;
  float last_d = -1.0f;
  int64_t last_i = -1;
  for (int found = 0; found < k; ++found) {
    float best_d = float_of(0x7f800000u);
    int64_t best_i = INT64_MAX;
    for (int64_t i = level.begin + lane; i < level.begin + level.size; i += kWarp) {
      if (state && state[i]) continue;
      const float d = squared_distance(center(priors, i), target);
      if (!is_finite(d) || d < last_d || (d == last_d && i <= last_i)) continue;
      if (d < best_d || (d == best_d && i < best_i)) best_d = d, best_i = i;
    }
    for (int step = kWarp / 2; step > 0; step /= 2) {
      const float d = __shfl_xor_sync(kAllLanes, best_d, step);
      const int64_t i = __shfl_xor_sync(kAllLanes, (long long)best_i, step);
      if (d < best_d || (d == best_d && i < best_i)) best_d = d, best_i = i;
    }
    if (best_i == INT64_MAX) return found;
    if (lane == 0) distance[found] = best_d, index[found] = best_i;
    last_d = best_d;
    last_i = best_i;
  }
  return k;
}

struct ClaimArgs {
  const float* priors;
  bool shared_priors;
  int64_t num_priors;
  const Level* levels;
  int num_levels;
  const float* gt_boxes;
  const int64_t* gt_labels;
  const float* pred_boxes;
  const float* pred_scores;
  int64_t num_classes;
  double alpha;
  Similarity similarity;
  float min_size;
  const uint8_t* state;
  unsigned long long* claims;
  int topk;
  int num_candidates;
};

// One warp per box. Lanes process the levels with a grid, the full warp the others.
__global__ void claim_priors(ClaimArgs args, ImageBegins begins) {
  extern __shared__ char storage[];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int warps = blockDim.x / kWarp;
  const int64_t box = begins.begin[0] + int64_t(blockIdx.x) * warps + warp;
  if (box >= begins.begin[begins.count]) return;
  int image = 0;
  while (box >= begins.begin[image + 1]) ++image;

  const float* gt = args.gt_boxes + 4 * box;
  if (!is_proper(gt)) return;
  const int64_t label = args.gt_labels ? args.gt_labels[box] : 0;
  if (args.pred_boxes && (label < 0 || label >= args.num_classes)) return;

  const int capacity = args.num_candidates;
  int64_t* index = reinterpret_cast<int64_t*>(storage) + int64_t(warp) * capacity;
  float* distance =
      reinterpret_cast<float*>(storage + int64_t(warps) * capacity * 8) + int64_t(warp) * capacity;
  float* overlap_of = distance + int64_t(warps) * capacity;

  const int own = args.shared_priors ? 0 : image;
  const float* priors = args.priors + int64_t(own) * args.num_priors * 4;
  const uint8_t* state = args.state ? args.state + image * args.num_priors : nullptr;
  const Level* levels = args.levels + own * args.num_levels;
  const Point target = center(gt, 0);

  // Each level has its own part of the storage. Gaps are closed afterwards, since a level may have fewer
  // candidates than places.
  int counts[kMostLevels / kWarp + 1] = {};
  for (int l = lane, turn = 0; l < args.num_levels; l += kWarp, ++turn) {
    const Level level = levels[l];
    if (level.row_length == 0) continue;
    int begin = 0;
    for (int m = 0; m < l; ++m) begin += int(min_of(int64_t(args.topk), levels[m].size));
    Nearest nearest(distance + begin, index + begin, int(min_of(int64_t(args.topk), level.size)));
    search_level(priors, state, level, target, nearest);
    counts[turn] = nearest.count;
  }
  __syncwarp();
  int begin = 0, count = 0;
  for (int l = 0; l < args.num_levels; ++l) {
    const Level level = levels[l];
    const int places = int(min_of(int64_t(args.topk), level.size));
    int here;
    if (level.size > 0 && level.row_length == 0) {
      here =
          search_all_by_warp(priors, state, level, target, places, distance + begin, index + begin);
      __syncwarp();
    } else {
      here = __shfl_sync(kAllLanes, counts[l / kWarp], l % kWarp);
    }
    if (count < begin) {
      for (int i = 0; i < here; ++i) {
        const int64_t moved = index[begin + i];
        __syncwarp();
        if (lane == 0) index[count + i] = moved;
      }
      __syncwarp();
    }
    begin += places;
    count += here;
  }

  const int64_t first = int64_t(image) * args.num_priors;
  const Overlaps overlaps{
      priors,
      args.pred_boxes ? args.pred_boxes + 4 * first : nullptr,
      args.pred_scores ? args.pred_scores + first * args.num_classes : nullptr,
      args.num_classes,
      args.alpha,
      args.similarity};
  for (int i = lane; i < count; i += kWarp) overlap_of[i] = overlaps(index[i], gt, label);
  __syncwarp();
  double threshold = 0;
  if (lane == 0) threshold = adaptive_threshold(overlap_of, count);
  threshold = __shfl_sync(kAllLanes, threshold, 0);
  const uint32_t box_in_image = uint32_t(box - begins.begin[image]);
  const Box<float> reach = enlarged(gt, args.min_size);
  for (int i = lane; i < count; i += kWarp) {
    if (double(overlap_of[i]) >= threshold && lies_inside(center(priors, index[i]), reach)) {
      atomicMax(
          args.claims + first + index[i],
          (unsigned long long)claim_key(overlap_of[i], box_in_image));
    }
  }
}

// Writes the results of the images of one launch.
__global__ void read_claims(
    const unsigned long long* claims, const uint8_t* state, const int64_t* gt_labels,
    ImageBegins begins, int64_t num_priors, int64_t* gt_inds, float* max_overlaps,
    int64_t* labels) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= begins.count * num_priors) return;
  const uint64_t key = claims[i];
  const int64_t box = key ? begins.begin[i / num_priors] + claim_box(key) : 0;
  labels[i] = !key ? -1 : gt_labels ? gt_labels[box] : 0;
  const bool takes_part = !state || state[i] == kCandidate;
  gt_inds[i] = key ? claim_box(key) + 1 : (takes_part ? 0 : -1);
  max_overlaps[i] = key ? claim_overlap(key) : 0.0f;
}

std::tuple<Tensor, Tensor, Tensor> atss_assign(
    const Tensor& priors, std::vector<int64_t> num_level_priors, const Tensor& gt_boxes,
    std::vector<int64_t> num_gts, int64_t topk, OptionalTensor valid, OptionalTensor ignore_boxes,
    std::vector<int64_t> num_ignored, double ignore_iof_thr, OptionalTensor pred_boxes,
    OptionalTensor pred_scores, OptionalTensor gt_labels, double alpha, int64_t similarity,
    std::vector<double> scale, double min_size) {
  const AtssArgs args(
      priors, num_level_priors, gt_boxes, num_gts, topk, valid, ignore_boxes, num_ignored,
      ignore_iof_thr, pred_boxes, pred_scores, gt_labels, alpha, similarity, scale, min_size);
  const int64_t bytes_per_box = args.num_candidates * 16;
  STD_TORCH_CHECK(
      bytes_per_box <= kSharedBytes, "atss_assign: ", args.num_candidates,
      " candidates a box (topk on each level) are more than the ", kSharedBytes / 16,
      " that fit the shared memory of a CUDA block; lower topk");
  STD_TORCH_CHECK(
      args.num_levels() <= kMostLevels, "atss_assign: ", args.num_levels(), " levels, at most ",
      kMostLevels, " on CUDA");
  torch::stable::accelerator::DeviceGuard guard(priors.get_device_index());
  const cudaStream_t stream = stream_of(priors);

  const int64_t all = args.num_images * args.num_priors;
  Tensor gt_inds =
      torch::stable::new_empty(args.priors, {args.num_images, args.num_priors}, ScalarType::Long);
  Tensor max_overlaps = torch::stable::new_empty(args.priors, {args.num_images, args.num_priors});
  Tensor labels =
      torch::stable::new_empty(args.priors, {args.num_images, args.num_priors}, ScalarType::Long);
  if (all == 0) return {gt_inds, max_overlaps, labels};
  const float* prior_data = static_cast<const float*>(args.priors.const_data_ptr());
  const bool shared_priors = args.priors_are_shared();

  LevelBegins level_begins{int(args.num_levels()), {}};
  std::copy(args.level_begin.begin(), args.level_begin.end(), level_begins.begin);
  Tensor levels = scratch<Level>(args.priors, args.priors.size(0) * args.num_levels());
  Level* level_data = static_cast<Level*>(levels.mutable_data_ptr());
  describe_levels<<<dim3(args.num_levels(), args.priors.size(0)), kThreads, 0, stream>>>(
      prior_data, args.num_priors, level_begins, level_data);
  STD_CUDA_KERNEL_LAUNCH_CHECK();

  const bool has_states = args.valid.has_value() || args.has_ignored();
  Tensor states = scratch<uint8_t>(args.priors, has_states ? all : 0);
  uint8_t* state_data = has_states ? static_cast<uint8_t*>(states.mutable_data_ptr()) : nullptr;
  Tensor claims = scratch<uint64_t>(args.priors, all);
  auto* claim_data = static_cast<unsigned long long*>(claims.mutable_data_ptr());
  STD_CUDA_CHECK(cudaMemsetAsync(claim_data, 0, all * sizeof(uint64_t), stream));

  const int64_t warps = std::max<int64_t>(
      1, std::min<int64_t>(4, kSharedBytes / std::max<int64_t>(bytes_per_box, 1)));
  for (int64_t image = 0; image < args.num_images; image += kImagesAtOnce) {
    const int64_t count = std::min<int64_t>(kImagesAtOnce, args.num_images - image);
    const int64_t first = image * args.num_priors;
    const float* own = prior_data + (shared_priors ? 0 : 4 * first);
    if (has_states) {
      const bool* valid_data = data_of<bool>(args.valid);
      const bool ignores = args.has_ignored();
      mark_states<<<blocks_for(count * args.num_priors, kThreads), kThreads, 0, stream>>>(
          own, shared_priors, args.num_priors, valid_data ? valid_data + first : nullptr,
          ignores ? data_of<float>(args.ignore_boxes) : nullptr,
          ignores ? begins_of(args.ignored_begin, image, count) : ImageBegins{int(count), {}},
          args.ignore_iof_thr, state_data + first);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
    const ImageBegins begins = begins_of(args.gt_begin, image, count);
    const int64_t boxes = begins.begin[count] - begins.begin[0];
    if (boxes == 0) continue;
    const float* boxes_of = data_of<float>(args.pred_boxes);
    const float* scores_of = data_of<float>(args.pred_scores);
    const ClaimArgs claim_args{
        own,
        shared_priors,
        args.num_priors,
        level_data + (shared_priors ? 0 : image * args.num_levels()),
        int(args.num_levels()),
        static_cast<const float*>(args.gt_boxes.const_data_ptr()),
        data_of<int64_t>(args.gt_labels),
        boxes_of ? boxes_of + 4 * first : nullptr,
        scores_of ? scores_of + args.num_classes * first : nullptr,
        args.num_classes,
        args.alpha,
        args.similarity,
        args.min_size,
        has_states ? state_data + first : nullptr,
        claim_data + first,
        int(std::min<int64_t>(args.topk, args.num_priors)),
        int(args.num_candidates)};
    claim_priors<<<blocks_for(boxes, warps), warps * kWarp, warps * bytes_per_box, stream>>>(
        claim_args, begins);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
  for (int64_t image = 0; image < args.num_images; image += kImagesAtOnce) {
    const int64_t count = std::min<int64_t>(kImagesAtOnce, args.num_images - image);
    const int64_t first = image * args.num_priors;
    read_claims<<<blocks_for(count * args.num_priors, kThreads), kThreads, 0, stream>>>(
        claim_data + first, has_states ? state_data + first : nullptr,
        data_of<int64_t>(args.gt_labels), begins_of(args.gt_begin, image, count), args.num_priors,
        static_cast<int64_t*>(gt_inds.mutable_data_ptr()) + first,
        static_cast<float*>(max_overlaps.mutable_data_ptr()) + first,
        static_cast<int64_t*>(labels.mutable_data_ptr()) + first);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return {gt_inds, max_overlaps, labels};
}

}  // namespace
}  // namespace negvision

STABLE_TORCH_LIBRARY_IMPL(negvision, CUDA, m) {
  m.impl("atss_assign", TORCH_BOX(&negvision::atss_assign));
}
