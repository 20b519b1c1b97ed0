// The arguments of max_iou_assign, checked once for every device, and its rule.
#pragma once

#include "assign_args.h"
#include "atss_math.h"

namespace negvision {

// Thresholds as in mmdet's MaxIoUAssigner; `ignore_iof` of 0 or below ignores no prior.
struct MaxIouRule {
  float positive, negative_low, negative_high, lowest_positive, ignore_iof;
  bool of_ignored, match_low_quality, assign_all;

  // The result of a prior: its highest overlap, the box of it (from 1, or 0 if it has none), and the
  // last box of which it is the best prior (from 1, or 0).
  NV_HD int64_t decide(float overlap, int64_t best, int64_t low_quality, bool has_boxes) const {
    if (low_quality > 0) return low_quality;
    if (best > 0 && overlap >= positive) return best;
    return !has_boxes || (overlap >= negative_low && overlap < negative_high) ? 0 : -1;
  }

  // Whether a box's best overlap, held in a key of claim_key with the prior's index, lets its best
  // priors be positive; and whether this prior is one of them.
  NV_HD bool is_low_quality(uint64_t key, float overlap, int64_t prior) const {
    if (!match_low_quality || key == 0 || !(claim_overlap(key) >= lowest_positive)) return false;
    return assign_all ? overlap == claim_overlap(key) : prior == claim_box(key);
  }
};

struct MaxIouArgs {
  Tensor priors;                // (1 or B, A, 4)
  Tensor gt_boxes, gt_labels;   // (sum of num_gts, 4), (sum of num_gts) int64
  OptionalTensor ignore_boxes;  // (sum of num_ignored, 4)
  std::vector<int64_t> gt_begin, ignored_begin;
  int64_t num_images, num_priors;
  MaxIouRule rule;

  MaxIouArgs(
      const Tensor& priors_in, const Tensor& gt_in, const std::vector<int64_t>& num_gts,
      const Tensor& labels_in, const OptionalTensor& ignore_in,
      const std::vector<int64_t>& num_ignored, bool of_ignored,
      const std::vector<double>& thresholds, bool match_low_quality, bool assign_all)
      : priors(torch::stable::contiguous(priors_in)),
        gt_boxes(torch::stable::contiguous(gt_in)),
        gt_labels(torch::stable::contiguous(labels_in)),
        gt_begin(running_sum(kName, num_gts, "num_gts")),
        ignored_begin(running_sum(kName, num_ignored, "num_ignored")),
        num_images(int64_t(num_gts.size())) {
    STD_TORCH_CHECK(priors.dim() == 3 && gt_boxes.dim() == 2, kName, ": wrong dimensions");
    STD_TORCH_CHECK(thresholds.size() == 5, kName, ": thresholds must be five numbers");
    check_float_boxes(kName, priors, "priors");
    check_float_boxes(kName, gt_boxes, "gt_boxes");
    check_device(kName, gt_boxes, priors, "gt_boxes");
    check_device(kName, gt_labels, priors, "gt_labels");
    num_priors = priors.size(1);
    STD_TORCH_CHECK(
        priors.size(0) == 1 || priors.size(0) == num_images, kName, ": priors are of ",
        priors.size(0), " images, num_gts of ", num_images);
    STD_TORCH_CHECK(
        gt_boxes.size(0) == gt_begin.back() && gt_labels.numel() == gt_begin.back() &&
            gt_labels.scalar_type() == ScalarType::Long,
        kName, ": num_gts add up to ", gt_begin.back(), ", but there are ", gt_boxes.size(0),
        " boxes and ", gt_labels.numel(), " labels, which must be int64");
    if (ignore_in) {
      check_device(kName, *ignore_in, priors, "ignore_boxes");
      ignore_boxes = torch::stable::contiguous(*ignore_in);
      check_float_boxes(kName, *ignore_boxes, "ignore_boxes");
      STD_TORCH_CHECK(
          int64_t(num_ignored.size()) == num_images &&
              ignore_boxes->size(0) == ignored_begin.back(),
          kName, ": num_ignored must have ", num_images, " counts that add up to ",
          ignore_boxes->size(0));
    }
    rule = {float(thresholds[0]), float(thresholds[1]), float(thresholds[2]), float(thresholds[3]),
            float(thresholds[4]), of_ignored,           match_low_quality,    assign_all};
  }

  bool has_ignored() const {
    return ignore_boxes && ignored_begin.back() > 0 && rule.ignore_iof > 0;
  }
  const float* priors_of(int64_t image) const {
    return static_cast<const float*>(priors.const_data_ptr()) +
        (priors.size(0) > 1 ? 4 * image * num_priors : 0);
  }
  const float* ignored() const {
    return has_ignored() ? static_cast<const float*>(ignore_boxes->const_data_ptr()) : nullptr;
  }

 private:
  static constexpr const char* kName = "max_iou_assign";
};

}  // namespace negvision
