// Max-IoU assignment on the CPU: threads process blocks of neighboring priors, which read only the
// boxes that touch them. The best prior of each box is known after the first pass over the blocks.
#include <torch/csrc/stable/library.h>

#include "blocks.h"
#include "claims.h"
#include "max_iou_args.h"

namespace negvision {
namespace {

using torch::stable::parallel_for;

constexpr int64_t kPairsPerTask = 1 << 20;  // about a millisecond

// Raises the overlaps of a block to those with box `g` (from 1); returns the highest with it.
NV_VECTORIZED static float raise_overlaps(
    const float* overlap, int32_t g, float* highest, int32_t* best) {
  float most = 0;
  for (int64_t k = 0; k < kBlock; ++k) {
    const bool higher = overlap[k] > highest[k];
    highest[k] = higher ? overlap[k] : highest[k];
    best[k] = higher ? g : best[k];
    most = overlap[k] > most ? overlap[k] : most;
  }
  return most;
}

class Assignment {
 public:
  explicit Assignment(const MaxIouArgs& args)
      : args_(args), blocks_(args.priors.size(0)), best_priors_(args.gt_begin.back()) {
    for (Blocks& own : blocks_) own.resize(args.num_priors);
  }

  std::tuple<Tensor, Tensor, Tensor> run() {
    const std::vector<int64_t> shape{args_.num_images, args_.num_priors};
    Tensor inds = torch::stable::new_empty(args_.priors, shape, ScalarType::Long);
    Tensor overlaps = torch::stable::new_zeros(args_.priors, shape);
    Tensor labels = torch::stable::new_empty(args_.priors, shape, ScalarType::Long);
    inds_ = static_cast<int64_t*>(inds.mutable_data_ptr());
    overlaps_ = static_cast<float*>(overlaps.mutable_data_ptr());
    labels_ = static_cast<int64_t*>(labels.mutable_data_ptr());
    for (int64_t image = 0; image < args_.num_images; ++image) {
      const int64_t boxes = args_.gt_begin[image + 1] - args_.gt_begin[image];
      const int64_t per_task = std::max<int64_t>(16, kPairsPerTask / kBlock / (1 + boxes));
      Blocks& own = blocks_[blocks_.size() > 1 ? image : 0];
      const auto each = [&](auto process) {
        parallel_for(0, own.count(), per_task, [&](int64_t first, int64_t last) {
          for (int64_t block = first; block < last; ++block) (this->*process)(image, own, block);
        });
      };
      if (image == 0 || blocks_.size() > 1) each(&Assignment::fill);
      each(&Assignment::find_highest);
      each(&Assignment::decide);
    }
    return {inds, overlaps, labels};
  }

 private:
  void fill(int64_t image, Blocks& own, int64_t block) {
    own.fill(block, [&](int64_t i) { return load_box(args_.priors_of(image), i); });
  }

  // Calls visit(box in the image, from 1; overlaps with the block) for the boxes that touch it.
  // Ignored priors and those past the end have overlap 0.
  template <typename F>
  void each_box(int64_t image, const Blocks& own, int64_t block, const F& visit) {
    float overlap[kBlock] = {};
    const int64_t first = block * kBlock, count = own.size_of(block);
    const float* boxes = static_cast<const float*>(args_.gt_boxes.const_data_ptr());
    const bool some_ignored = args_.has_ignored();
    for (int64_t g = args_.gt_begin[image]; g < args_.gt_begin[image + 1]; ++g) {
      const Box<float> box = load_box(boxes, g);
      if (!own.touches(block, box) || !is_proper(boxes + 4 * g)) continue;
      own.overlaps(box, first, count, kUnionFloor, overlap);
      for (int64_t k = 0; some_ignored && k < count; ++k) {
        if (overlaps_[image * args_.num_priors + first + k] < 0) overlap[k] = 0;
      }
      visit(g, overlap);
    }
  }

  void find_highest(int64_t image, Blocks& own, int64_t block) {
    const int64_t first = block * kBlock, count = own.size_of(block);
    const int64_t begin = image * args_.num_priors + first;
    if (args_.has_ignored()) {
      const int64_t from = args_.ignored_begin[image];
      for (int64_t k = 0; k < count; ++k) {
        if (is_ignored(
                args_.priors_of(image), first + k, args_.ignored() + 4 * from,
                args_.ignored_begin[image + 1] - from, args_.rule.ignore_iof,
                args_.rule.of_ignored)) {
          overlaps_[begin + k] = -1;
        }
      }
    }
    float highest[kBlock] = {};
    int32_t best[kBlock] = {};
    each_box(image, own, block, [&](int64_t g, const float* overlap) {
      const float most =
          raise_overlaps(overlap, int32_t(g - args_.gt_begin[image] + 1), highest, best);
      if (!(most > 0) || most < claim_overlap(__atomic_load_n(&best_priors_[g], __ATOMIC_RELAXED)))
        return;
      int64_t k = 0;
      while (overlap[k] != most) ++k;
      raise_to(&best_priors_[g], claim_key(most, uint32_t(first + k)));
    });
    for (int64_t k = 0; k < count; ++k) {
      inds_[begin + k] = best[k];
      if (best[k] > 0) overlaps_[begin + k] = highest[k];
    }
  }

  void decide(int64_t image, Blocks& own, int64_t block) {
    const int64_t first = block * kBlock, count = own.size_of(block);
    const int64_t begin = image * args_.num_priors + first;
    const int64_t boxes = args_.gt_begin[image];
    int64_t low_quality[kBlock] = {};
    if (args_.rule.match_low_quality) {
      each_box(image, own, block, [&](int64_t g, const float* overlap) {
        for (int64_t k = 0; k < count; ++k) {
          if (args_.rule.is_low_quality(best_priors_[g], overlap[k], first + k)) {
            low_quality[k] = g - boxes + 1;
          }
        }
      });
    }
    for (int64_t k = 0; k < count; ++k) {
      int64_t& ind = inds_[begin + k];
      const float overlap = overlaps_[begin + k];
      ind = overlap < 0
          ? -1
          : args_.rule.decide(overlap, ind, low_quality[k], args_.gt_begin[image + 1] > boxes);
      labels_[begin + k] = ind > 0
          ? static_cast<const int64_t*>(args_.gt_labels.const_data_ptr())[boxes + ind - 1]
          : -1;
    }
  }

  const MaxIouArgs& args_;
  std::vector<Blocks> blocks_;
  std::vector<uint64_t> best_priors_;
  int64_t* inds_ = nullptr;
  float* overlaps_ = nullptr;
  int64_t* labels_ = nullptr;
};

std::tuple<Tensor, Tensor, Tensor> max_iou_assign(
    const Tensor& priors, const Tensor& gt_boxes, std::vector<int64_t> num_gts,
    const Tensor& gt_labels, OptionalTensor ignore_boxes, std::vector<int64_t> num_ignored,
    bool of_ignored, std::vector<double> thresholds, bool match_low_quality, bool assign_all) {
  const MaxIouArgs args(
      priors, gt_boxes, num_gts, gt_labels, ignore_boxes, num_ignored, of_ignored, thresholds,
      match_low_quality, assign_all);
  return Assignment(args).run();
}

}  // namespace
}  // namespace negvision

STABLE_TORCH_LIBRARY_IMPL(negvision, CPU, m) {
  m.impl("max_iou_assign", TORCH_BOX(&negvision::max_iou_assign));
}
