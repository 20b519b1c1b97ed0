// Max-IoU assignment on CUDA: a thread per prior goes through the boxes of its image, and warps raise
// the best prior of each box. Nothing waits for the device.
#include <algorithm>

#include <torch/csrc/stable/library.h>

#include "../max_iou_args.h"
#include "cuda/batches.h"
#include "launch.h"

namespace negvision {
namespace {

// The images of one launch; a row of blocks per image. Pointers are of the first image.
struct Batch {
  const float* priors;
  bool shared_priors;
  int64_t num_priors;
  const float* gt_boxes;
  const int64_t* gt_labels;
  const float* ignored;  // or null
  ImageBegins begins, ignored_begins;
  MaxIouRule rule;
  unsigned long long* best_priors;  // of all boxes
  int64_t* gt_inds;
  float* max_overlaps;
  int64_t* labels;

  NV_HD const float* priors_of(int64_t image) const {
    return priors + (shared_priors ? 0 : 4 * image * num_priors);
  }
  NV_HD float overlap_of(int64_t image, int64_t prior, int64_t g) const {
    if (!is_proper(gt_boxes + 4 * g)) return 0.0f;
    const float iou = overlap(
        load_box(priors_of(image), prior), load_box(gt_boxes, g), OverlapMode::kIoU, kUnionFloor);
    return iou > 0 ? iou : 0.0f;
  }
};

__global__ void find_highest(Batch batch) {
  const int64_t image = blockIdx.y, i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const bool is_prior = i < batch.num_priors;  // all lanes stay, for the exchange of keys
  const int64_t from = batch.ignored_begins.begin[image];
  const bool excluded = is_prior && batch.ignored &&
      is_ignored(batch.priors_of(image), i, batch.ignored + 4 * from,
                 batch.ignored_begins.begin[image + 1] - from, batch.rule.ignore_iof,
                 batch.rule.of_ignored);
  float highest = 0;
  int64_t best = 0;
  for (int64_t g = batch.begins.begin[image]; g < batch.begins.begin[image + 1]; ++g) {
    const float iou = is_prior && !excluded ? batch.overlap_of(image, i, g) : 0.0f;
    if (iou > highest) highest = iou, best = g - batch.begins.begin[image] + 1;
    unsigned long long key = iou > 0 ? claim_key(iou, uint32_t(i)) : 0;
    for (int step = kWarp / 2; step > 0; step /= 2) {
      key = max_of(key, __shfl_xor_sync(kAllLanes, key, step));
    }
    if (key && threadIdx.x % kWarp == 0) atomicMax(batch.best_priors + g, key);
  }
  if (!is_prior) return;
  batch.max_overlaps[image * batch.num_priors + i] = excluded ? -1.0f : highest;
  batch.gt_inds[image * batch.num_priors + i] = best;
}

__global__ void decide(Batch batch) {
  const int64_t image = blockIdx.y, prior = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (prior >= batch.num_priors) return;
  const int64_t i = image * batch.num_priors + prior;
  const int64_t begin = batch.begins.begin[image], end = batch.begins.begin[image + 1];
  int64_t low_quality = 0, ind = -1;
  if (!(batch.max_overlaps[i] < 0)) {
    for (int64_t g = end - 1; g >= begin && batch.rule.match_low_quality; --g) {
      const float iou = batch.overlap_of(image, prior, g);
      if (batch.rule.is_low_quality(batch.best_priors[g], iou, prior)) {
        low_quality = g - begin + 1;
        break;
      }
    }
    ind = batch.rule.decide(batch.max_overlaps[i], batch.gt_inds[i], low_quality, end > begin);
  }
  batch.gt_inds[i] = ind;
  batch.labels[i] = ind > 0 ? batch.gt_labels[begin + ind - 1] : -1;
}

std::tuple<Tensor, Tensor, Tensor> max_iou_assign(
    const Tensor& priors, const Tensor& gt_boxes, std::vector<int64_t> num_gts,
    const Tensor& gt_labels, OptionalTensor ignore_boxes, std::vector<int64_t> num_ignored,
    bool of_ignored, std::vector<double> thresholds, bool match_low_quality, bool assign_all) {
  const MaxIouArgs args(
      priors, gt_boxes, num_gts, gt_labels, ignore_boxes, num_ignored, of_ignored, thresholds,
      match_low_quality, assign_all);
  torch::stable::accelerator::DeviceGuard guard(priors.get_device_index());
  const cudaStream_t stream = stream_of(priors);
  const std::vector<int64_t> shape{args.num_images, args.num_priors};
  Tensor gt_inds = torch::stable::new_empty(args.priors, shape, ScalarType::Long);
  Tensor max_overlaps = torch::stable::new_empty(args.priors, shape);
  Tensor labels = torch::stable::new_empty(args.priors, shape, ScalarType::Long);
  if (args.num_images * args.num_priors == 0) return {gt_inds, max_overlaps, labels};
  Tensor best = scratch<uint64_t>(args.priors, args.gt_begin.back());
  STD_CUDA_CHECK(cudaMemsetAsync(best.mutable_data_ptr(), 0, args.gt_begin.back() * 8, stream));
  for (int64_t image = 0; image < args.num_images; image += kImagesAtOnce) {
    const int64_t count = std::min<int64_t>(kImagesAtOnce, args.num_images - image);
    const int64_t first = image * args.num_priors;
    // Not within the braces: nvcc 13.0 crashes on a conditional there.
    ImageBegins ignored_begins{int(count), {}};
    if (args.has_ignored()) ignored_begins = begins_of(args.ignored_begin, image, count);
    const Batch batch{
        args.priors_of(image),
        args.priors.size(0) == 1,
        args.num_priors,
        static_cast<const float*>(args.gt_boxes.const_data_ptr()),
        static_cast<const int64_t*>(args.gt_labels.const_data_ptr()),
        args.ignored(),
        begins_of(args.gt_begin, image, count),
        ignored_begins,
        args.rule,
        data_of<unsigned long long>(best),
        data_of<int64_t>(gt_inds) + first,
        data_of<float>(max_overlaps) + first,
        data_of<int64_t>(labels) + first};
    const dim3 grid(blocks_for(args.num_priors, kThreads), count);
    find_highest<<<grid, kThreads, 0, stream>>>(batch);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    decide<<<grid, kThreads, 0, stream>>>(batch);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return {gt_inds, max_overlaps, labels};
}

}  // namespace
}  // namespace negvision

STABLE_TORCH_LIBRARY_IMPL(negvision, CUDA, m) {
  m.impl("max_iou_assign", TORCH_BOX(&negvision::max_iou_assign));
}
