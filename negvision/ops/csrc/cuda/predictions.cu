// Assignments that look at predictions, on CUDA: a warp ranks the priors of a box, an atomic maximum
// settles claims, and a thread per prior reads them. Nothing waits for the device.
#include <algorithm>

#include <torch/csrc/stable/library.h>

#include "../prediction_args.h"
#include "cuda/batches.h"
#include "launch.h"

namespace negvision {
namespace {

// The images of one launch. Pointers of `pairs` are of the first of them.
struct Batch {
  PredictionPairs pairs;
  Targets targets;
  ImageBegins begins;
  int64_t num_priors;
  bool shared_priors;
  int topk;
  uint8_t* admitted;
  uint8_t* contested;
  unsigned long long* claims;

  NV_HD PredictionPairs pairs_of(int64_t image) const {
    PredictionPairs own = pairs;
    own.priors += shared_priors ? 0 : 4 * image * num_priors;
    own.boxes += 4 * image * num_priors;
    own.scores += image * num_priors * own.num_classes;
    if (own.class_costs) own.class_costs += image * num_priors;
    return own;
  }
};

// Which priors can be positive for any box of their image.
__global__ void admit(Batch batch) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= batch.begins.count * batch.num_priors) return;
  const int64_t image = i / batch.num_priors;
  const PredictionPairs pairs = batch.pairs_of(image);
  bool is_admitted = false;
  for (int64_t g = batch.begins.begin[image]; g < batch.begins.begin[image + 1]; ++g) {
    if (is_admitted) break;
    is_admitted =
        batch.targets.is_proper(g) && pairs.admits(i % batch.num_priors, batch.targets[g]);
  }
  batch.admitted[i] = is_admitted;
}

// The lowest key of a warp's rankings, which is taken from its ranking. Each ranking is in order.
__device__ uint64_t take_lowest(const Ranking& own, int& taken) {
  const uint64_t head = taken < own.count ? own.keys[taken] : kNever;
  unsigned long long lowest = head;
  for (int step = kWarp / 2; step > 0; step /= 2) {
    lowest = min_of(lowest, __shfl_xor_sync(kAllLanes, lowest, step));
  }
  // Of equal keys, as overlaps can be, the first lane's goes.
  unsigned long long lane = head == lowest ? threadIdx.x % kWarp : kWarp;
  for (int step = kWarp / 2; step > 0; step /= 2) {
    lane = min_of(lane, __shfl_xor_sync(kAllLanes, lane, step));
  }
  if (lowest != kNever && lane == threadIdx.x % kWarp) ++taken;
  return lowest;
}

// One warp per box. Each lane ranks its part of the priors; the rankings are then merged.
__global__ void claim(Batch batch) {
  extern __shared__ char storage[];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t box = batch.begins.begin[0] + int64_t(blockIdx.x) * (blockDim.x / kWarp) + warp;
  if (box >= batch.begins.begin[batch.begins.count] || !batch.targets.is_proper(box)) return;
  int image = 0;
  while (box >= batch.begins.begin[image + 1]) ++image;
  const PredictionPairs pairs = batch.pairs_of(image);
  const Target target = batch.targets[box];
  const bool dynamic = has_dynamic_k(pairs.rule);
  const int64_t first = image * batch.num_priors;

  uint64_t* keys =
      reinterpret_cast<uint64_t*>(storage) + int64_t(threadIdx.x) * batch.topk * (dynamic ? 2 : 1);
  Ranking best{keys, batch.topk, 0}, overlaps{keys + batch.topk, batch.topk, 0};
  bool is_bad = false;
  for (int64_t i = lane; i < batch.num_priors; i += kWarp) {
    if (dynamic && !batch.admitted[first + i]) continue;
    if (pairs.rule == PredictionRule::kContained && !pairs.is_inside(i, target.box)) continue;
    const float iou = pairs.iou(i, target.box);
    if (dynamic && iou > 0) overlaps.offer(rank_key(false, -iou, 0));
    const float measure = pairs.overlap_from(iou, i, target.box);
    const uint64_t key = pairs.rank(i, target, measure, best.worst(), &is_bad);
    if (key != kNever) best.offer(key | uint64_t(i));
  }
  __syncwarp();

  int taken = 0, k = batch.topk;
  if (dynamic) {
    double sum = 0;
    for (int round = 0; round < batch.topk; ++round) {
      const uint64_t key = take_lowest(overlaps, taken);
      if (key == kNever) break;
      sum = add_rn(sum, double(-rank_value(key)));
    }
    k = dynamic_k(sum);
  }
  taken = 0;
  for (int round = 0; round < k; ++round) {
    const uint64_t key = take_lowest(best, taken);
    if (key == kNever) break;
    const int64_t i = rank_index(key);
    if (lane != 0) continue;
    if (pairs.rule == PredictionRule::kTaskAligned && !pairs.is_inside(i, target.box)) continue;
    const float measure = pairs.overlap_from(pairs.iou(i, target.box), i, target.box);
    const uint32_t own = uint32_t(box - batch.begins.begin[image]);
    if (atomicMax(batch.claims + first + i, (unsigned long long)claim_key(measure, own))) {
      batch.contested[first + i] = 1;
    }
  }
}

__global__ void read_claims(
    Batch batch, int64_t* gt_inds, float* max_overlaps, int64_t* labels, float* metrics) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= batch.begins.count * batch.num_priors) return;
  const int64_t image = i / batch.num_priors;
  const int64_t begin = batch.begins.begin[image], end = batch.begins.begin[image + 1];
  const int64_t prior = i % batch.num_priors;
  Settled won{-1, 0.0f, 0.0f};
  if (batch.claims[i]) {
    const PredictionPairs pairs = batch.pairs_of(image);
    int64_t box = claim_box(batch.claims[i]);
    if (batch.contested[i] && pairs.rule != PredictionRule::kTaskAligned) {
      Contest contest{pairs, batch.targets, prior, begin, kNever};
      contest.consider(box);  // its rank rules out most others early
      for (int64_t g = 0; g < end - begin; ++g) contest.consider(g);
      box = contest.winner();
    }
    won = settled(pairs, batch.targets, prior, begin, box);
  }
  gt_inds[i] = won.box + 1;
  max_overlaps[i] = won.overlap;
  labels[i] = won.box < 0 ? -1 : batch.targets.labels[begin + won.box];
  metrics[i] = won.metric;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> assign_by_predictions(
    const Tensor& priors, const Tensor& boxes, const Tensor& scores, OptionalTensor class_costs,
    const Tensor& gt_boxes, std::vector<int64_t> num_gts, const Tensor& gt_labels,
    OptionalTensor gt_centers, int64_t rule, int64_t topk, std::vector<double> weights,
    int64_t similarity, std::vector<double> scale) {
  const PredictionArgs args(
      priors, boxes, scores, class_costs, gt_boxes, num_gts, gt_labels, gt_centers, rule, topk,
      weights, similarity, scale);
  const bool dynamic = has_dynamic_k(args.rule);
  const int64_t places = std::max<int64_t>(1, std::min(args.topk, args.num_priors));
  const int64_t bytes_per_box = kWarp * places * 8 * (dynamic ? 2 : 1);
  STD_TORCH_CHECK(
      bytes_per_box <= kSharedBytes, "topk of ", topk, " is more than the ",
      kSharedBytes / (kWarp * 8 * (dynamic ? 2 : 1)),
      " that fit the shared memory of a CUDA block; lower topk");
  torch::stable::accelerator::DeviceGuard guard(priors.get_device_index());
  const cudaStream_t stream = stream_of(priors);

  const std::vector<int64_t> shape{args.num_images, args.num_priors};
  const int64_t all = args.num_images * args.num_priors;
  Tensor gt_inds = torch::stable::new_empty(args.priors, shape, ScalarType::Long);
  Tensor labels = torch::stable::new_empty(args.priors, shape, ScalarType::Long);
  Tensor max_overlaps = torch::stable::new_empty(args.priors, shape);
  Tensor metrics = torch::stable::new_empty(args.priors, shape);
  if (all == 0) return {gt_inds, max_overlaps, labels, metrics};
  Tensor claims = scratch<uint64_t>(args.priors, all);
  Tensor states = scratch<uint8_t>(args.priors, 2 * all);
  STD_CUDA_CHECK(cudaMemsetAsync(claims.mutable_data_ptr(), 0, all * 8, stream));
  STD_CUDA_CHECK(cudaMemsetAsync(states.mutable_data_ptr(), 0, 2 * all, stream));

  const int64_t warps = std::max<int64_t>(1, std::min<int64_t>(4, kSharedBytes / bytes_per_box));
  for (int64_t image = 0; image < args.num_images; image += kImagesAtOnce) {
    const int64_t count = std::min<int64_t>(kImagesAtOnce, args.num_images - image);
    const int64_t first = image * args.num_priors;
    const Batch batch{
        args.pairs(image),
        args.targets(),
        begins_of(args.gt_begin, image, count),
        args.num_priors,
        args.priors.size(0) == 1,
        int(places),
        data_of<uint8_t>(states) + first,
        data_of<uint8_t>(states) + all + first,
        data_of<unsigned long long>(claims) + first};
    const int64_t targets = batch.begins.begin[count] - batch.begins.begin[0];
    const int64_t blocks = blocks_for(count * args.num_priors, kThreads);
    if (targets > 0) {
      if (dynamic) {
        admit<<<blocks, kThreads, 0, stream>>>(batch);
        STD_CUDA_KERNEL_LAUNCH_CHECK();
      }
      claim<<<blocks_for(targets, warps), warps * kWarp, warps * bytes_per_box, stream>>>(batch);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
    read_claims<<<blocks, kThreads, 0, stream>>>(
        batch, data_of<int64_t>(gt_inds) + first, data_of<float>(max_overlaps) + first,
        data_of<int64_t>(labels) + first, data_of<float>(metrics) + first);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return {gt_inds, max_overlaps, labels, metrics};
}

}  // namespace
}  // namespace negvision

STABLE_TORCH_LIBRARY_IMPL(negvision, CUDA, m) {
  m.impl("assign_by_predictions", TORCH_BOX(&negvision::assign_by_predictions));
}
