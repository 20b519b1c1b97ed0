// The arguments of atss_assign, checked once for every device.
#pragma once

#include "assign_args.h"

namespace negvision {

struct AtssArgs {
  Tensor priors;                // (1 or B, A, 4)
  Tensor gt_boxes;              // (sum of num_gts, 4)
  OptionalTensor valid;         // (B, A) bool
  OptionalTensor ignore_boxes;  // (sum of num_ignored, 4)
  OptionalTensor pred_boxes;    // (B, A, 4)
  OptionalTensor pred_scores;   // (B, A, C) logits
  OptionalTensor gt_labels;     // (sum of num_gts) int64
  std::vector<int64_t> level_begin, gt_begin, ignored_begin;
  int64_t num_images, num_priors, num_classes, topk, num_candidates;
  float ignore_iof_thr;
  double alpha;
  Similarity similarity;
  float min_size;

  AtssArgs(
      const Tensor& priors_in, const std::vector<int64_t>& num_level_priors, const Tensor& gt_in,
      const std::vector<int64_t>& num_gts, int64_t k, const OptionalTensor& valid_in,
      const OptionalTensor& ignore_in, const std::vector<int64_t>& num_ignored, double iof_thr,
      const OptionalTensor& pred_boxes_in, const OptionalTensor& pred_scores_in,
      const OptionalTensor& gt_labels_in, double alpha_in, int64_t similarity_in,
      const std::vector<double>& scale, double min_size_in)
      : priors(in_order(priors_in)),
        gt_boxes(in_order(gt_in)),
        level_begin(running_sum("atss_assign", num_level_priors, "num_level_priors")),
        gt_begin(running_sum("atss_assign", num_gts, "num_gts")),
        ignored_begin(running_sum("atss_assign", num_ignored, "num_ignored")),
        num_images(int64_t(num_gts.size())),
        num_classes(0),
        topk(k),
        num_candidates(0),
        ignore_iof_thr(float(iof_thr)),
        alpha(alpha_in),
        similarity(similarity_of("atss_assign", similarity_in, scale)),
        min_size(float(min_size_in)) {
    STD_TORCH_CHECK(topk >= 1, "atss_assign: topk must be at least 1, got ", topk);
    STD_TORCH_CHECK(priors.dim() == 3, "atss_assign: priors must be (1 or B, A, 4)");
    check_float_boxes("atss_assign", priors, "priors");
    num_priors = priors.size(1);
    STD_TORCH_CHECK(
        priors.size(0) == 1 || priors.size(0) == num_images, "atss_assign: priors are of ",
        priors.size(0), " images, num_gts of ", num_images);
    STD_TORCH_CHECK(
        level_begin.back() == num_priors, "atss_assign: num_level_priors add up to ",
        level_begin.back(), ", but there are ", num_priors, " priors");
    STD_TORCH_CHECK(gt_boxes.dim() == 2, "atss_assign: gt_boxes must be (G, 4)");
    check_float_boxes("atss_assign", gt_boxes, "gt_boxes");
    check_device("atss_assign", gt_boxes, priors, "gt_boxes");
    STD_TORCH_CHECK(
        gt_boxes.size(0) == gt_begin.back(), "atss_assign: num_gts add up to ", gt_begin.back(),
        ", but there are ", gt_boxes.size(0), " boxes");
    for (size_t l = 0; l + 1 < level_begin.size(); ++l) {
      num_candidates += std::min(topk, level_begin[l + 1] - level_begin[l]);
    }
    if (valid_in) {
      check_device("atss_assign", *valid_in, priors, "valid");
      valid = in_order(*valid_in);
      STD_TORCH_CHECK(
          valid->scalar_type() == ScalarType::Bool && valid->dim() == 2 &&
              valid->size(0) == num_images && valid->size(1) == num_priors,
          "atss_assign: valid must be bool of shape (", num_images, ", ", num_priors, ")");
    }
    if (ignore_in) {
      check_device("atss_assign", *ignore_in, priors, "ignore_boxes");
      ignore_boxes = in_order(*ignore_in);
      check_float_boxes("atss_assign", *ignore_boxes, "ignore_boxes");
      STD_TORCH_CHECK(
          int64_t(num_ignored.size()) == num_images &&
              ignore_boxes->size(0) == ignored_begin.back(),
          "atss_assign: num_ignored must have ", num_images, " counts that add up to ",
          ignore_boxes->size(0));
    }
    if (gt_labels_in) {
      check_device("atss_assign", *gt_labels_in, priors, "gt_labels");
      gt_labels = in_order(*gt_labels_in);
      STD_TORCH_CHECK(
          gt_labels->scalar_type() == ScalarType::Long && gt_labels->numel() == gt_boxes.size(0),
          "atss_assign: gt_labels must be int64, one for each of ", gt_boxes.size(0), " boxes");
    }
    if (pred_boxes_in) {
      STD_TORCH_CHECK(
          pred_scores_in && gt_labels_in,
          "atss_assign: pred_boxes need pred_scores and gt_labels too");
      check_device("atss_assign", *pred_boxes_in, priors, "pred_boxes");
      check_device("atss_assign", *pred_scores_in, priors, "pred_scores");
      pred_boxes = in_order(*pred_boxes_in);
      pred_scores = in_order(*pred_scores_in);
      check_float_boxes("atss_assign", *pred_boxes, "pred_boxes");
      STD_TORCH_CHECK(
          pred_boxes->dim() == 3 && pred_boxes->size(0) == num_images &&
              pred_boxes->size(1) == num_priors && pred_scores->dim() == 3 &&
              pred_scores->size(0) == num_images && pred_scores->size(1) == num_priors &&
              pred_scores->scalar_type() == ScalarType::Float,
          "atss_assign: pred_boxes and pred_scores must be float32 of shape (", num_images, ", ",
          num_priors, ", 4 or C)");
      num_classes = pred_scores->size(2);
    }
  }

  bool is_plain_iou() const { return !pred_boxes && similarity.kind == SimilarityKind::kIoU; }
  int64_t num_levels() const { return int64_t(level_begin.size()) - 1; }
  int64_t num_boxes() const { return gt_begin.back(); }
  bool priors_are_shared() const { return priors.size(0) == 1; }
  // Whether ignored boxes can exclude priors.
  bool has_ignored() const {
    return ignore_boxes && ignored_begin.back() > 0 && ignore_iof_thr > 0;
  }
};

}  // namespace negvision
