// Max-IoU assignment on the CPU: threads process blocks of neighboring priors, which read only the
// boxes that touch them. The best prior of each box is known after the first pass over the blocks.
#include <torch/csrc/stable/library.h>

#include "blocks.h"
#include "claims.h"
#include "max_iou_args.h"
#include "turns.h"

namespace negvision {
namespace {

constexpr int64_t kPairsPerTask = 1 << 20;  // about a millisecond

// Raises the overlaps of a block to those with box `g` (from 1).
NV_VECTORIZED static void raise_overlaps(
    const float* overlap, int32_t g, float* highest, int32_t* best) {
  for (int64_t k = 0; k < kBlock; ++k) {
    const bool higher = overlap[k] > highest[k];
    highest[k] = higher ? overlap[k] : highest[k];
    best[k] = higher ? g : best[k];
  }
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
        in_turns(0, own.count(), per_task, [&](int64_t first, int64_t last) {
          std::vector<uint8_t> touched;
          for (int64_t block = first; block < last; ++block) {
            (this->*process)(image, own, block, touched);
          }
        });
      };
      gts_.resize(boxes);
      for (int64_t block = 0; block < gts_.count(); ++block) {
        gts_.fill(block, [&](int64_t g) { return load_box(gt(image), g); });
      }
      if (image == 0 || blocks_.size() > 1) each(&Assignment::fill);
      each(&Assignment::find_highest);
      each(&Assignment::decide);
    }
    return {inds, overlaps, labels};
  }

 private:
  const float* gt(int64_t image) const {
    return static_cast<const float*>(args_.gt_boxes.const_data_ptr()) + 4 * args_.gt_begin[image];
  }

  void fill(int64_t image, Blocks& own, int64_t block, std::vector<uint8_t>&) {
    own.fill(block, [&](int64_t i) { return load_box(args_.priors_of(image), i); });
  }

  // Calls visit(box in the image; overlaps with the block; the highest of them) for the boxes that
  // touch it and `is_wanted`. Ignored priors, NaN and places past the end have overlap 0.
  template <typename W, typename F>
  void each_box(
      int64_t image, const Blocks& own, int64_t block, std::vector<uint8_t>& touched,
      const W& is_wanted, const F& visit) {
    float overlap[kBlock] = {};
    const int64_t first = block * kBlock, count = own.size_of(block);
    const float* state = overlaps_ + image * args_.num_priors + first;
    gts_.visit_each(own.bounds_of(block), touched, [&](int64_t g) {
      const float* box = gt(image) + 4 * g;
      if (!is_proper(box) || !is_wanted(g)) return;
      float most = own.overlaps(load_box(box, 0), first, count, kUnionFloor, overlap);
      if (args_.has_ignored() || most != most) {
        for (int64_t k = 0; k < count; ++k) {
          if (state[k] < 0 || !(overlap[k] > 0)) overlap[k] = 0;
        }
        most = *std::max_element(overlap, overlap + kBlock);
      }
      visit(g, overlap, most);
    });
  }

  void find_highest(int64_t image, Blocks& own, int64_t block, std::vector<uint8_t>& touched) {
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
    uint64_t* best_priors = best_priors_.data() + args_.gt_begin[image];
    const auto all = [](int64_t) { return true; };
    each_box(image, own, block, touched, all, [&](int64_t g, const float* overlap, float most) {
      if (!(most > 0)) return;
      raise_overlaps(overlap, int32_t(g + 1), highest, best);
      if (most < claim_overlap(__atomic_load_n(best_priors + g, __ATOMIC_RELAXED))) return;
      const int64_t k = std::find(overlap, overlap + kBlock, most) - overlap;
      raise_to(best_priors + g, claim_key(most, uint32_t(first + k)));
    });
    for (int64_t k = 0; k < count; ++k) {
      inds_[begin + k] = best[k];
      if (best[k] > 0) overlaps_[begin + k] = highest[k];
    }
  }

  void decide(int64_t image, Blocks& own, int64_t block, std::vector<uint8_t>& touched) {
    const int64_t first = block * kBlock, count = own.size_of(block);
    const int64_t begin = image * args_.num_priors + first;
    const int64_t boxes = args_.gt_begin[image];
    int64_t low_quality[kBlock] = {};
    if (args_.rule.match_low_quality) {
      const uint64_t* best_priors = best_priors_.data() + boxes;
      const auto can_be_best = [&](int64_t g) {
        return own.can_reach(block, claim_overlap(best_priors[g]), area(load_box(gt(image), g)));
      };
      const auto mark = [&](int64_t g, const float* overlap, float most) {
        if (most < claim_overlap(best_priors[g])) return;
        for (int64_t k = 0; k < count; ++k) {
          if (args_.rule.is_low_quality(best_priors[g], overlap[k], first + k)) {
            low_quality[k] = g + 1;
          }
        }
      };
      each_box(image, own, block, touched, can_be_best, mark);
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
  Blocks gts_;  // of the image
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
