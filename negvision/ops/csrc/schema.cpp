// Operator schemas. Shapes are checked in the *_args.h headers for every device. Operators on images
// have CPU kernels only.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(negvision, m) {
  m.def(
      "atss_assign(Tensor priors, int[] num_level_priors, Tensor gt_boxes, int[] num_gts, int "
      "topk, "
      "Tensor? valid, Tensor? ignore_boxes, int[] num_ignored, float ignore_iof_thr, "
      "Tensor? pred_boxes, Tensor? pred_scores, Tensor? gt_labels, float alpha, "
      "int similarity=0, float[] scale=[], float min_size=0) "
      "-> (Tensor gt_inds, Tensor max_overlaps, Tensor labels)");
  m.def(
      "assign_by_predictions(Tensor priors, Tensor boxes, Tensor scores, Tensor? class_costs, "
      "Tensor gt_boxes, int[] num_gts, Tensor gt_labels, Tensor? gt_centers, int rule, int topk, "
      "float[] weights, int similarity=0, float[] scale=[]) "
      "-> (Tensor gt_inds, Tensor max_overlaps, Tensor labels, Tensor metrics)");
  m.def(
      "max_iou_assign(Tensor priors, Tensor gt_boxes, int[] num_gts, Tensor gt_labels, "
      "Tensor? ignore_boxes, int[] num_ignored, bool of_ignored, float[] thresholds, "
      "bool match_low_quality, bool assign_all) "
      "-> (Tensor gt_inds, Tensor max_overlaps, Tensor labels)");
  m.def("pairwise_box_iou(Tensor boxes1, Tensor boxes2, int mode, float eps) -> Tensor");
  m.def("aligned_box_iou(Tensor boxes1, Tensor boxes2, int mode, float eps) -> Tensor");
  m.def(
      "pairwise_box_iou_backward(Tensor grad, Tensor boxes1, Tensor boxes2, int mode, float eps) "
      "-> (Tensor, Tensor)");
  m.def(
      "aligned_box_iou_backward(Tensor grad, Tensor boxes1, Tensor boxes2, int mode, float eps) "
      "-> (Tensor, Tensor)");
  m.def(
      "class_logsumexp(Tensor embeddings, Tensor centers, Tensor labels, Tensor class_ids, "
      "float scale, int columns) -> Tensor");
  m.def(
      "class_logsumexp_backward(Tensor embeddings, Tensor centers, Tensor labels, "
      "Tensor class_ids, float scale, int columns, Tensor logsumexp, Tensor grad, "
      "bool with_centers) -> (Tensor of_embeddings, Tensor of_centers)");
  m.def(
      "negatives_logsumexp(Tensor similarities, Tensor row_labels, Tensor column_labels, "
      "int diagonal, Tensor? bounds, float scale) -> (Tensor logsumexp, Tensor kept)");
  m.def(
      "negatives_softmax_(Tensor(a!) similarities, Tensor row_labels, Tensor column_labels, "
      "int diagonal, Tensor? bounds, float scale, Tensor logsumexp, Tensor grad) -> ()");
  m.def(
      "negatives_histogram(Tensor similarities, Tensor row_labels, Tensor column_labels, "
      "int diagonal, Tensor prefixes, int shift) -> Tensor");
  m.def("image_planes(Tensor image, bool rows_reversed, bool columns_reversed) -> Tensor");
  m.def(
      "distort_colors(Tensor image, bool rows_reversed, bool columns_reversed, int[] kinds, "
      "float[] amounts) -> Tensor");
}
