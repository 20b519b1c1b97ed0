// Assignments that look at predictions, on the CPU: threads process boxes, which read only the blocks
// of predictions that they touch.
#include <atomic>

#include <torch/csrc/stable/library.h>

#include "blocks.h"
#include "claims.h"
#include "estimates.h"
#include "prediction_args.h"
#include "turns.h"

namespace negvision {
namespace {

constexpr int64_t kPairsPerTask = 1 << 20;  // about a millisecond
constexpr int64_t kPriorsPerTask = 1 << 15;
constexpr int64_t kFewBoxes = 32;

// A pair that may rank among the best of its box.
struct Candidate {
  int64_t prior;
  float overlap;
  uint64_t lower;  // bound of its key
};

// The rankings of one box, and scratch of its thread.
struct Scratch {
  std::vector<uint64_t> best, uppers, overlaps;
  std::vector<float> limits;
  std::vector<int64_t> later;
  std::vector<std::pair<int64_t, uint32_t>> central;  // blocks, and their priors near the middle
  std::vector<Candidate> candidates;
  PairEstimates pairs;
  explicit Scratch(int64_t k) : best(k), uppers(k), overlaps(k) {}
};

class Assignment {
 public:
  explicit Assignment(const PredictionArgs& args)
      : args_(args),
        targets_(args.targets()),
        gt_inds_(
            torch::stable::new_zeros(
                args.priors, {args.num_images, args.num_priors}, ScalarType::Long)),
        // Claims use the memory of the result: both need 8 bytes per prior.
        claims_(static_cast<uint64_t*>(gt_inds_.mutable_data_ptr())),
        contested_(args.num_images * args.num_priors),
        predictions_(args.num_images),
        sorted_(args.num_images),
        places_(has_dynamic_k(args.rule) ? args.num_images : 0) {}

  std::tuple<Tensor, Tensor, Tensor, Tensor> run() {
    if (args_.num_boxes() > 0) {
      fill_blocks();
      if (!places_.empty()) {
        each_box([&](int64_t image, int64_t box, Scratch&) { admit(image, box); });
      }
      each_box([&](int64_t image, int64_t box, Scratch& scratch) { claim(image, box, scratch); });
    }
    auto results = read_claims();
    const int64_t bad = bad_pair_.load();
    STD_TORCH_CHECK(
        bad < 0, "a score of prior ", bad % std::max<int64_t>(1, args_.num_priors), " in image ",
        bad / std::max<int64_t>(1, args_.num_priors),
        " lies outside [0, 1]: scores must be probabilities, not logits");
    return results;
  }

 private:
  // Blocks of predictions that are alike, and of where a box is that admits their priors.
  void fill_blocks() {
    for (int64_t image = 0; image < args_.num_images; ++image) {
      const PredictionPairs pairs = args_.pairs(image);
      std::vector<int32_t>& sorted = sorted_[image];
      if (args_.gt_begin[image + 1] - args_.gt_begin[image] < kFewBoxes) {
        sorted.resize(args_.num_priors);
        std::iota(sorted.begin(), sorted.end(), 0);
      } else {
        sort_by_place(
            args_.num_priors, [&](int64_t i) { return load_box(pairs.boxes, i); }, sorted);
      }
      Blocks& own = predictions_[image];
      own.resize(args_.num_priors);
      blocks_each_ = own.count();
      const bool with_places = !places_.empty();
      if (with_places) places_[image].resize(args_.num_priors);
      in_turns(0, own.count(), kPriorsPerTask / kBlock, [&](int64_t first, int64_t last) {
        for (int64_t block = first; block < last; ++block) {
          own.fill(block, [&](int64_t i) { return load_box(pairs.boxes, sorted[i]); });
          if (!with_places) continue;
          // Where the middle of a box is that has the prior in its center, rounded up.
          const bool with_center = args_.rule == PredictionRule::kSimOta;
          places_[image].fill(block, [&](int64_t i) {
            const float* p = pairs.priors + 4 * int64_t(sorted[i]);
            const float r = float(args_.weights[2]) * 1.001f;
            const float x = with_center ? r * p[2] + 1e-5f * std::fabs(p[0]) : 0.0f;
            const float y = with_center ? r * p[3] + 1e-5f * std::fabs(p[1]) : 0.0f;
            return Box<float>{p[0] - x, p[1] - y, p[0] + x, p[1] + y};
          });
        }
      });
    }
    if (!places_.empty()) admitted_.resize(args_.num_images * blocks_each_);
  }

  template <typename F>
  void each_box(const F& process) {
    const int64_t per_task = std::max<int64_t>(1, kPairsPerTask / (1 + args_.num_priors));
    in_turns(0, args_.num_boxes(), per_task, [&](int64_t first, int64_t last) {
      Scratch scratch(args_.topk);
      int64_t image = std::upper_bound(args_.gt_begin.begin(), args_.gt_begin.end(), first) -
          args_.gt_begin.begin() - 1;
      for (int64_t box = first; box < last; ++box) {
        while (box >= args_.gt_begin[image + 1]) ++image;
        if (targets_.is_proper(box)) process(image, box, scratch);
      }
    });
  }

  void admit(int64_t image, int64_t box) {
    const PredictionPairs pairs = args_.pairs(image);
    const Target target = targets_[box];
    const Blocks& places = places_[image];
    // A prior in the box or near its middle. The middle may lie outside: of a mask.
    Box<float> around = load_box(target.box, 0);
    around.x1 = std::min(around.x1, target.center.x),
    around.x2 = std::max(around.x2, target.center.x);
    around.y1 = std::min(around.y1, target.center.y),
    around.y2 = std::max(around.y2, target.center.y);
    places.visit(around, [&](int64_t block) {
      uint32_t* admitted = admitted_.data() + image * blocks_each_ + block;
      const uint32_t known = __atomic_load_n(admitted, __ATOMIC_RELAXED);
      if (known == ~uint32_t(0)) return;
      uint32_t found = 0;
      each_bit(places.touching_in(block, around) & ~known, [&](int64_t k) {
        if (pairs.admits(sorted_[image][block * kBlock + k], target)) found |= uint32_t(1) << k;
      });
      if (found) __atomic_fetch_or(admitted, found, __ATOMIC_RELAXED);
    });
  }

  void claim(int64_t image, int64_t box, Scratch& scratch) {
    const PredictionPairs pairs = args_.pairs(image);
    const Target target = targets_[box];
    const Box<float> gt = load_box(target.box, 0);
    const Blocks& own = predictions_[image];
    const int32_t* sorted = sorted_[image].data();
    const bool dynamic = has_dynamic_k(args_.rule);
    const uint32_t* admitted = dynamic ? admitted_.data() + image * blocks_each_ : nullptr;
    Ranking uppers{scratch.uppers.data(), int(args_.topk), 0};
    Ranking overlaps{scratch.overlaps.data(), int(args_.topk), 0};
    PairEstimates& waiting = scratch.pairs;
    scratch.candidates.clear();
    int count = 0;
    // Pairs of the first and of the second class with more than these bounds do not rank, nor do pairs
    // with no more than these overlaps.
    float most[2] = {kBoundless, kBoundless}, floor[2] = {0, 0}, lowest_overlap = 0;
    const auto settle = [&] {
      for (int n = 0; n < count; ++n) {
        const int64_t i = waiting.prior[n];
        waiting.score[n] = pairs.scores[i * pairs.num_classes + target.label];
        if (!dynamic) continue;
        const float* p = pairs.priors + 4 * i;
        waiting.class_cost[n] = pairs.class_costs[i];
        waiting.x[n] = p[0], waiting.y[n] = p[1], waiting.step_x[n] = p[2],
        waiting.step_y[n] = p[3];
        if (!(waiting.overlap[n] > lowest_overlap)) continue;
        overlaps.offer(rank_key(false, -waiting.overlap[n], 0));
        if (overlaps.worst() != kNever) lowest_overlap = -rank_value(overlaps.worst());
      }
      estimate(pairs, target, waiting);
      const uint32_t likely =
          not_above(waiting, most[0], most[1]) & uint32_t((uint64_t(1) << count) - 1);
      each_bit(likely, [&](int64_t n) {
        if (waiting.lower[n] > most[waiting.second[n]]) return;
        float overlap = waiting.overlap[n], lower = waiting.lower[n], upper = waiting.upper[n];
        if (args_.rule == PredictionRule::kContained) {
          const float complete = pairs.overlap_from(overlap, waiting.prior[n], target.box);
          if (!(complete > 0)) return;
          // The bounds are of the IoU, which is no less.
          const float more = float(pairs.weights[1]) * (quick_log2(overlap) - quick_log2(complete));
          overlap = complete, upper += more + 1e-4f * float(pairs.weights[1]);
          if (complete < 1e-30f || !(upper < 140)) upper = kBoundless;
        }
        const bool second = waiting.second[n];
        scratch.candidates.push_back(
            {waiting.prior[n], overlap, lower == lower ? rank_key(second, lower, 0) : 0});
        if (upper < kBoundless) uppers.offer(rank_key(second, upper, 0));
        const uint64_t worst = uppers.worst();
        if (worst == kNever) return;
        most[0] = worst >> 63 ? kBoundless : rank_value(worst);
        most[1] = worst >> 63 ? rank_value(worst) : -kBoundless;
      });
      count = 0;
      for (int k = 0; k < 2; ++k) {
        floor[k] = most[k] == -kBoundless ? kBoundless : overlap_floor(pairs, most[k]);
        if (dynamic) floor[k] = std::min(floor[k], lowest_overlap);
      }
    };
    float iou[kBlock];
    const auto visit = [&](int64_t block, float lowest, uint32_t among) {
      const uint32_t found = among & own.similarities(args_.similarity, gt, block, lowest, iou);
      each_bit(found, [&](int64_t k) {
        const int64_t i = sorted[block * kBlock + k];
        if (args_.rule == PredictionRule::kContained && !pairs.is_inside(i, target.box)) return;
        // Scores lie far apart in memory, so they are fetched some pairs ahead.
        __builtin_prefetch(pairs.scores + i * pairs.num_classes + target.label);
        waiting.prior[count] = i;
        waiting.overlap[count] = iou[k];
        if (++count == kPairs) settle();
      });
    };
    own.limits(gt, args_.similarity, scratch.limits);
    scratch.central.clear();
    const bool has_classes = args_.rule == PredictionRule::kSimOta;
    const Point c = target.center;
    const Box<float> middle{c.x, c.y, c.x, c.y};
    if (has_classes) {
      // Only these priors make pairs of the first class.
      const Blocks& places = places_[image];
      places.visit(middle, [&](int64_t block) {
        const uint32_t central = places.touching_in(block, middle) & admitted[block];
        scratch.central.push_back({block, central});
        if (scratch.limits[block] > 0) visit(block, floor[0], central);
      });
      settle();
    }
    const float& rest = floor[has_classes];
    for (const auto& [block, central] : scratch.central) {
      if (scratch.limits[block] > rest) visit(block, rest, admitted[block] & ~central);
      scratch.limits[block] = 0;
    }
    visit_above(scratch.limits, rest, scratch.later, [&](int64_t block) {
      visit(block, rest, dynamic ? admitted[block] : ~uint32_t(0));
    });
    settle();

    Ranking best{scratch.best.data(), int(args_.topk), 0};
    if (dynamic) {
      double sum = 0;
      for (int k = 0; k < overlaps.count; ++k) {
        sum = add_rn(sum, double(-rank_value(overlaps.keys[k])));
      }
      best.capacity = uppers.capacity = dynamic_k(sum);
      uppers.count = std::min(uppers.count, uppers.capacity);
    }
    bool is_bad = false;
    const auto offer = [&](int64_t i, float overlap) {
      const uint64_t key = pairs.rank(i, target, overlap, best.worst(), &is_bad);
      if (is_bad) report(image, i);
      if (key != kNever) best.offer(key | uint64_t(i));
    };
    for (const Candidate& each : scratch.candidates) {
      if (each.lower <= uppers.worst()) offer(each.prior, each.overlap);
    }
    // Priors whose predictions lie apart, if they can rank among the best.
    const auto offer_apart = [&](int64_t block, uint32_t among) {
      own.overlaps(gt, block, 0.0f, iou);
      each_bit(among, [&](int64_t k) {
        if (iou[k] == 0) offer(sorted[block * kBlock + k], 0.0f);
      });
    };
    if (dynamic && best.worst() > pairs.lowest_apart(false)) {
      for (const auto& [block, central] : scratch.central) offer_apart(block, central);
      if (best.worst() > pairs.lowest_apart(has_classes)) {
        for (const auto& [block, central] : scratch.central) {
          offer_apart(block, admitted[block] & ~central);
          scratch.limits[block] = kBoundless;  // done
        }
        for (int64_t block = 0; block < own.count(); ++block) {
          if (scratch.limits[block] < kBoundless) offer_apart(block, admitted[block]);
        }
      }
    }
    const int64_t begin = image * args_.num_priors;
    for (int k = 0; k < best.count; ++k) {
      const int64_t i = rank_index(best.keys[k]);
      if (args_.rule == PredictionRule::kTaskAligned && !pairs.is_inside(i, target.box)) continue;
      const float measure = pairs.overlap_from(pairs.iou(i, target.box), i, target.box);
      const uint32_t number = uint32_t(box - args_.gt_begin[image]);
      if (raise_to(claims_ + begin + i, claim_key(measure, number))) {
        __atomic_store_n(contested_.data() + begin + i, 1, __ATOMIC_RELAXED);
      }
    }
  }

  // The boxes of each image in blocks of neighbors: in rows of their height, from left to right.
  void fill_neighbors() {
    neighbors_.resize(args_.num_images);
    order_.resize(args_.num_boxes());
    in_turns(0, args_.num_images, 1, [&](int64_t from, int64_t to) {
      for (int64_t image = from; image < to; ++image) {
        const int64_t begin = args_.gt_begin[image], count = args_.gt_begin[image + 1] - begin;
        std::vector<std::pair<int64_t, float>> place(count);
        for (int64_t g = 0; g < count; ++g) {
          const Point middle = center(targets_.boxes, begin + g);
          place[g] = {
              is_finite(middle.y) ? int64_t(middle.y / 64) : 0,
              is_finite(middle.x) ? middle.x : 0.0f};
          order_[begin + g] = g;
        }
        std::sort(&order_[begin], &order_[begin] + count, [&](int64_t a, int64_t b) {
          return place[a] < place[b];
        });
        neighbors_[image].resize(count);
        for (int64_t block = 0; block < neighbors_[image].count(); ++block) {
          neighbors_[image].fill(block, [&](int64_t k) {
            return load_box(targets_.boxes, begin + order_[begin + k]);
          });
        }
      }
    });
  }

  // The box of a contested prior. Boxes apart from the prediction matter only if nothing is near.
  int64_t winner(
      const PredictionPairs& pairs, int64_t image, int64_t prior, int64_t claimant) const {
    const int64_t begin = args_.gt_begin[image], end = args_.gt_begin[image + 1];
    Contest contest{pairs, targets_, prior, begin, kNever};
    contest.consider(claimant);  // its rank rules out most others early
    const Box<float> predicted = load_box(pairs.boxes, prior);
    const Blocks& near = neighbors_[image];
    near.visit(predicted, [&](int64_t block) {
      each_bit(near.touching_in(block, predicted), [&](int64_t k) {
        contest.consider(order_[begin + block * kBlock + k]);
      });
    });
    if (has_dynamic_k(pairs.rule) && contest.lowest > pairs.lowest_apart(false)) {
      for (int64_t g = 0; g < end - begin; ++g) contest.consider(g);
    }
    return contest.winner();
  }

  // Converts the claims to the result.
  std::tuple<Tensor, Tensor, Tensor, Tensor> read_claims() {
    const std::vector<int64_t> shape{args_.num_images, args_.num_priors};
    Tensor overlaps = torch::stable::new_zeros(args_.priors, shape);
    Tensor metrics = torch::stable::new_zeros(args_.priors, shape);
    Tensor labels = torch::stable::new_empty(args_.priors, shape, ScalarType::Long);
    float* overlap_of = static_cast<float*>(overlaps.mutable_data_ptr());
    float* metric_of = static_cast<float*>(metrics.mutable_data_ptr());
    int64_t* label_of = static_cast<int64_t*>(labels.mutable_data_ptr());
    int64_t* inds = static_cast<int64_t*>(gt_inds_.mutable_data_ptr());
    if (args_.rule != PredictionRule::kTaskAligned) fill_neighbors();
    in_turns(0, int64_t(contested_.size()), kPriorsPerTask / 4, [&](int64_t first, int64_t last) {
      std::fill(label_of + first, label_of + last, -1);
      for (int64_t i = next_claim(claims_, first, last); i < last;
           i = next_claim(claims_, i + 1, last)) {
        const int64_t image = i / args_.num_priors, prior = i % args_.num_priors;
        const PredictionPairs pairs = args_.pairs(image);
        const int64_t begin = args_.gt_begin[image];
        int64_t box = claim_box(claims_[i]);
        if (contested_[i] && args_.rule != PredictionRule::kTaskAligned) {
          box = winner(pairs, image, prior, box);
        }
        const Settled won = settled(pairs, targets_, prior, begin, box);
        inds[i] = box + 1;
        overlap_of[i] = won.overlap;
        metric_of[i] = won.metric;
        label_of[i] = targets_.labels[begin + box];
      }
    });
    return {gt_inds_, overlaps, labels, metrics};
  }

  void report(int64_t image, int64_t prior) { bad_pair_.store(image * args_.num_priors + prior); }

  const PredictionArgs& args_;
  const Targets targets_;
  Tensor gt_inds_;
  uint64_t* claims_;
  std::vector<uint8_t> contested_;
  int64_t blocks_each_ = 0;         // of the predictions of an image
  std::vector<uint32_t> admitted_;  // a bit per prior, in the order of predictions_
  std::vector<Blocks> predictions_;
  std::vector<std::vector<int32_t>> sorted_;  // indices of priors in the order of predictions_
  std::vector<Blocks> places_, neighbors_;
  std::vector<int64_t> order_;
  std::atomic<int64_t> bad_pair_{-1};
};

std::tuple<Tensor, Tensor, Tensor, Tensor> assign_by_predictions(
    const Tensor& priors, const Tensor& boxes, const Tensor& scores, OptionalTensor class_costs,
    const Tensor& gt_boxes, std::vector<int64_t> num_gts, const Tensor& gt_labels,
    OptionalTensor gt_centers, int64_t rule, int64_t topk, std::vector<double> weights,
    int64_t similarity, std::vector<double> scale) {
  const PredictionArgs args(
      priors, boxes, scores, class_costs, gt_boxes, num_gts, gt_labels, gt_centers, rule, topk,
      weights, similarity, scale);
  return Assignment(args).run();
}

}  // namespace
}  // namespace negvision

STABLE_TORCH_LIBRARY_IMPL(negvision, CPU, m) {
  m.impl("assign_by_predictions", TORCH_BOX(&negvision::assign_by_predictions));
}
