// The arguments of assign_by_predictions, checked once for every device.
#pragma once

#include "assign_args.h"
#include "prediction_math.h"

namespace negvision {

struct PredictionArgs {
  Tensor priors;                           // (1 or B, A, 4)
  Tensor boxes, scores;                    // (B, A, 4), (B, A, C)
  OptionalTensor class_costs, gt_centers;  // (B, A), (sum of num_gts, 2)
  Tensor gt_boxes, gt_labels;              // (sum of num_gts, 4), (sum of num_gts) int64
  std::vector<int64_t> gt_begin;
  int64_t num_images, num_priors, num_classes, topk;
  PredictionRule rule;
  double weights[3];
  Similarity similarity;

  PredictionArgs(
      const Tensor& priors_in, const Tensor& boxes_in, const Tensor& scores_in,
      const OptionalTensor& costs_in, const Tensor& gt_in, const std::vector<int64_t>& num_gts,
      const Tensor& labels_in, const OptionalTensor& centers_in, int64_t rule_in, int64_t k,
      const std::vector<double>& weights_in, int64_t similarity_in,
      const std::vector<double>& scale)
      : priors(torch::stable::contiguous(priors_in)),
        boxes(torch::stable::contiguous(boxes_in)),
        scores(torch::stable::contiguous(scores_in)),
        gt_boxes(torch::stable::contiguous(gt_in)),
        gt_labels(torch::stable::contiguous(labels_in)),
        gt_begin(running_sum(kName, num_gts, "num_gts")),
        num_images(int64_t(num_gts.size())),
        topk(k),
        rule(PredictionRule(rule_in)),
        similarity(similarity_of(kName, similarity_in, scale)) {
    STD_TORCH_CHECK(
        k >= 1 && rule_in >= 0 && rule_in <= 3 && weights_in.size() == 3, kName,
        ": topk must be at least 1, rule 0 to 3, and weights three numbers");
    std::copy(weights_in.begin(), weights_in.end(), weights);
    STD_TORCH_CHECK(
        rule == PredictionRule::kTaskAligned || similarity.kind == SimilarityKind::kIoU, kName,
        ": only rule 0 takes a similarity other than IoU");
    STD_TORCH_CHECK(
        priors.dim() == 3 && boxes.dim() == 3 && scores.dim() == 3 && gt_boxes.dim() == 2, kName,
        ": priors, boxes, scores and gt_boxes must have 3, 3, 3 and 2 dimensions");
    check_float_boxes(kName, priors, "priors");
    check_float_boxes(kName, boxes, "boxes");
    check_float_boxes(kName, gt_boxes, "gt_boxes");
    num_priors = priors.size(1);
    num_classes = scores.size(2);
    STD_TORCH_CHECK(
        (priors.size(0) == 1 || priors.size(0) == num_images) && boxes.size(0) == num_images &&
            boxes.size(1) == num_priors && scores.size(0) == num_images &&
            scores.size(1) == num_priors && scores.scalar_type() == ScalarType::Float,
        kName, ": boxes and scores must be float32 of ", num_images, " images and ", num_priors,
        " priors");
    STD_TORCH_CHECK(num_priors < int64_t(1) << 31, kName, ": more than 2^31 priors");
    STD_TORCH_CHECK(
        gt_boxes.size(0) == gt_begin.back() && gt_labels.numel() == gt_begin.back() &&
            gt_labels.scalar_type() == ScalarType::Long,
        kName, ": num_gts add up to ", gt_begin.back(), ", but there are ", gt_boxes.size(0),
        " boxes and ", gt_labels.numel(), " labels, which must be int64");
    for (const Tensor& tensor : {boxes, scores, gt_boxes, gt_labels}) {
      check_device(kName, tensor, priors, "every tensor");
    }
    STD_TORCH_CHECK(
        costs_in.has_value() == has_dynamic_k(rule), kName,
        ": class_costs belong to the rules with a dynamic k, 2 and 3");
    class_costs = checked(costs_in, num_images * num_priors, "class_costs");
    gt_centers = checked(centers_in, 2 * gt_begin.back(), "gt_centers");
  }

  int64_t num_boxes() const { return gt_begin.back(); }

  PredictionPairs pairs(int64_t image) const {
    const int64_t first = image * num_priors;
    return {
        rule,
        static_cast<const float*>(priors.const_data_ptr()) + (priors.size(0) > 1 ? 4 * first : 0),
        static_cast<const float*>(boxes.const_data_ptr()) + 4 * first,
        static_cast<const float*>(scores.const_data_ptr()) + first * num_classes,
        class_costs ? static_cast<const float*>(class_costs->const_data_ptr()) + first : nullptr,
        num_classes,
        {weights[0], weights[1], weights[2]},
        similarity};
  }

  Targets targets() const {
    return {
        static_cast<const float*>(gt_boxes.const_data_ptr()),
        gt_centers ? static_cast<const float*>(gt_centers->const_data_ptr()) : nullptr,
        static_cast<const int64_t*>(gt_labels.const_data_ptr()), num_classes};
  }

 private:
  static constexpr const char* kName = "assign_by_predictions";

  OptionalTensor checked(const OptionalTensor& tensor, int64_t count, const char* name) const {
    if (!tensor) return {};
    check_device(kName, *tensor, priors, name);
    STD_TORCH_CHECK(
        tensor->scalar_type() == ScalarType::Float && tensor->numel() == count, kName, ": ", name,
        " must be ", count, " numbers in float32");
    return torch::stable::contiguous(*tensor);
  }
};

}  // namespace negvision
