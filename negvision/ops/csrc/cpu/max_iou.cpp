// Max-IoU assignment on the CPU: threads process boxes, which look for their best priors, and then
// blocks of priors, which look for their best boxes. Both skip what cannot be better.
#include <torch/csrc/stable/library.h>

#include "blocks.h"
#include "max_iou_args.h"
#include "turns.h"

namespace negvision {
namespace {

constexpr int64_t kPairsPerTask = 1 << 22;  // about a millisecond
constexpr int64_t kFewBoxes = 32;

// Raises the overlaps of a block of priors to those with box `g` (from 1); of equal overlaps the lower
// box counts. Returns the lowest of the overlaps.
NV_VECTORIZED_WIDE static float raise_overlaps(
    const float* overlap, int32_t g, float* highest, int32_t* best) {
  int32_t lowest = std::numeric_limits<int32_t>::max();
  for (int k = 0; k < kBlock; ++k) {
    const bool higher = (overlap[k] > highest[k]) | ((overlap[k] == highest[k]) & (g < best[k]));
    highest[k] = higher ? overlap[k] : highest[k];
    best[k] = higher ? g : best[k];
    // Bits of numbers that are not negative sort like the numbers.
    const int32_t bits = int32_t(bits_of(highest[k]));
    lowest = bits < lowest ? bits : lowest;
  }
  return float_of(uint32_t(lowest));
}

// Scratch of a thread.
struct Scratch {
  std::vector<float> limits;
  std::vector<int64_t> later, near;
  std::vector<int32_t> best;
};

class Assignment {
 public:
  explicit Assignment(const MaxIouArgs& args)
      : args_(args),
        inds_(new_result(ScalarType::Long)),
        overlaps_(new_result(ScalarType::Float)),
        labels_(new_result(ScalarType::Long)),
        low_quality_(args.rule.match_low_quality ? args.num_priors : 0),
        ignored_(args.has_ignored() ? args.num_priors : 0) {}

  std::tuple<Tensor, Tensor, Tensor> run() {
    for (int64_t image = 0; image < args_.num_images; ++image) {
      const int64_t boxes = args_.gt_begin[image + 1] - args_.gt_begin[image];
      const bool is_first = image == 0 || args_.priors.size(0) > 1;
      const auto each = [&](int64_t count, int64_t pairs, const auto& process) {
        const int64_t per_task = std::max<int64_t>(1, kPairsPerTask / (1 + pairs));
        in_turns(0, count, per_task, [&](int64_t first, int64_t last) {
          Scratch scratch;
          for (int64_t i = first; i < last; ++i) process(i, scratch);
        });
      };
      gt_ = static_cast<const float*>(args_.gt_boxes.const_data_ptr()) + 4 * args_.gt_begin[image];
      const float* priors = args_.priors_of(image);
      if (is_first) {
        const auto prior = [&](int64_t i) { return load_box(priors, i); };
        sort(args_.num_priors, prior, most_boxes() < kFewBoxes, order_);
        priors_.resize(args_.num_priors);
        each(priors_.count(), kBlock, [&](int64_t block, Scratch&) {
          priors_.fill(block, [&](int64_t i) { return prior(order_[i]); });
        });
      }
      // A box that can claim nothing takes no place.
      sort(boxes, [&](int64_t g) { return load_box(gt_, g); }, boxes < kFewBoxes, gt_order_);
      const auto cannot_claim = [&](int32_t g) { return !is_proper(gt_ + 4 * int64_t(g)); };
      gt_order_.erase(
          std::remove_if(gt_order_.begin(), gt_order_.end(), cannot_claim), gt_order_.end());
      gts_.resize(gt_order_.size());
      for (int64_t block = 0; block < gts_.count(); ++block) {
        gts_.fill(block, [&](int64_t k) { return load_box(gt_, gt_order_[k]); });
      }
      if (!ignored_.empty()) {
        const int64_t from = args_.ignored_begin[image], to = args_.ignored_begin[image + 1];
        each(args_.num_priors, to - from, [&](int64_t i, Scratch&) {
          ignored_[i] = is_ignored(
              priors, i, args_.ignored() + 4 * from, to - from, args_.rule.ignore_iof,
              args_.rule.of_ignored);
        });
      }
      if (!low_quality_.empty()) {
        std::fill(low_quality_.begin(), low_quality_.end(), 0);
        each(gts_.size(), args_.num_priors, [&](int64_t k, Scratch& scratch) {
          find_best_priors(gt_order_[k], scratch);
        });
      }
      each(priors_.count(), kBlock * boxes, [&](int64_t block, Scratch& scratch) {
        decide(image, block, scratch);
      });
    }
    return {inds_, overlaps_, labels_};
  }

 private:
  Tensor new_result(ScalarType type) const {
    return torch::stable::new_empty(args_.priors, {args_.num_images, args_.num_priors}, type);
  }

  int64_t most_boxes() const {
    int64_t most = 0;
    for (int64_t i = 0; i < args_.num_images; ++i) {
      most = std::max(most, args_.gt_begin[i + 1] - args_.gt_begin[i]);
    }
    return most;
  }

  template <typename F>
  static void sort(int64_t count, const F& box, bool is_kept, std::vector<int32_t>& order) {
    if (!is_kept) return sort_by_place(count, box, order);
    order.resize(count);
    std::iota(order.begin(), order.end(), 0);
  }

  // The best priors of box `g` take note of it, if they are good enough.
  void find_best_priors(int64_t g, Scratch& scratch) {
    const Box<float> gt = load_box(gt_, g);
    float most = 0, floor = 0, overlap[kBlock];
    priors_.limits(gt, Similarity{}, scratch.limits);
    scratch.best.clear();
    visit_above(scratch.limits, floor, scratch.later, [&](int64_t block) {
      if (!priors_.overlaps(gt, block, floor, overlap)) return;
      if (!ignored_.empty()) {
        for (int64_t k = 0; k < priors_.size_of(block); ++k) {
          if (ignored_[order_[block * kBlock + k]]) overlap[k] = 0;
        }
      }
      float highest;
      const uint32_t found = where_highest(overlap, &highest);
      if (highest < most || highest == 0) return;
      if (highest > most) scratch.best.clear();
      most = highest;
      floor = just_below(most);  // equal ones count, too
      each_bit(found, [&](int64_t k) { scratch.best.push_back(order_[block * kBlock + k]); });
    });
    if (scratch.best.empty() || !(most >= args_.rule.lowest_positive)) return;
    if (!args_.rule.assign_all) {
      scratch.best = {*std::min_element(scratch.best.begin(), scratch.best.end())};
    }
    for (const int32_t i : scratch.best) {
      int32_t seen = __atomic_load_n(&low_quality_[i], __ATOMIC_RELAXED);
      while (
          seen < g + 1 &&
          !__atomic_compare_exchange_n(
              &low_quality_[i], &seen, int32_t(g + 1), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      }
    }
  }

  void decide(int64_t image, int64_t block, Scratch& scratch) {
    const int64_t all = args_.gt_begin[image], boxes = args_.gt_begin[image + 1] - all;
    float highest[kBlock] = {}, overlap[kBlock], floor = 0;
    int32_t best[kBlock] = {};
    // Places past the end and ignored priors hold back nothing.
    for (int64_t k = 0; k < kBlock; ++k) {
      const bool is_free =
          k < priors_.size_of(block) && (ignored_.empty() || !ignored_[order_[block * kBlock + k]]);
      if (!is_free) highest[k] = kBeyond;
    }
    scratch.near.clear();
    gts_.visit(priors_.bounds_of(block), [&](int64_t near) { scratch.near.push_back(near); });
    scratch.limits.resize(scratch.near.size() * kBlock);
    for (size_t n = 0; n < scratch.near.size(); ++n) {
      gts_.limits_in(scratch.near[n], priors_, block, scratch.limits.data() + n * kBlock);
    }
    visit_above(scratch.limits, floor, scratch.later, [&](int64_t k) {
      const int32_t g = gt_order_[scratch.near[k / kBlock] * kBlock + k % kBlock];
      priors_.overlaps(load_box(gt_, g), block, 0.0f, overlap);
      const float lowest = raise_overlaps(overlap, g + 1, highest, best);
      floor = just_below(lowest);
    });
    int64_t* inds = static_cast<int64_t*>(inds_.mutable_data_ptr()) + image * args_.num_priors;
    float* overlaps = static_cast<float*>(overlaps_.mutable_data_ptr()) + image * args_.num_priors;
    int64_t* labels = static_cast<int64_t*>(labels_.mutable_data_ptr()) + image * args_.num_priors;
    const int64_t* label_of = static_cast<const int64_t*>(args_.gt_labels.const_data_ptr()) + all;
    for (int64_t k = 0; k < priors_.size_of(block); ++k) {
      const int64_t i = order_[block * kBlock + k];
      if (!ignored_.empty() && ignored_[i]) {
        inds[i] = labels[i] = -1, overlaps[i] = -1;
        continue;
      }
      overlaps[i] = highest[k];
      inds[i] = args_.rule.decide(
          highest[k], best[k], low_quality_.empty() ? 0 : low_quality_[i], boxes > 0);
      labels[i] = inds[i] > 0 ? label_of[inds[i] - 1] : -1;
    }
  }

  static constexpr float kBeyond = std::numeric_limits<float>::max();

  const MaxIouArgs& args_;
  Tensor inds_, overlaps_, labels_;
  Blocks priors_, gts_;                    // of the image
  std::vector<int32_t> order_, gt_order_;  // indices in the order of the blocks
  const float* gt_ = nullptr;
  std::vector<int32_t> low_quality_;  // the last box of which a prior is the best, from 1, or 0
  std::vector<uint8_t> ignored_;
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
