// Assignments that look at predictions, on the CPU: threads process boxes, which read only the blocks
// of predictions that they touch.
#include <atomic>
#include <numeric>

#include <torch/csrc/stable/library.h>

#include "blocks.h"
#include "claims.h"
#include "prediction_args.h"
#include "turns.h"

namespace negvision {
namespace {

constexpr int64_t kPairsPerTask = 1 << 20;  // about a millisecond
constexpr int64_t kPriorsPerTask = 1 << 15;
constexpr int kAhead = 64;
constexpr int64_t kFewBoxes = 32;
constexpr int kScales = 6, kCells = 64;

// The rankings of one box, and scratch of its thread.
struct Scratch {
  std::vector<uint64_t> best, overlaps;
  std::vector<uint8_t> touched;
  std::vector<float> limits;
  std::vector<int64_t> later;
  explicit Scratch(int64_t k) : best(k), overlaps(k) {}
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
        admitted_(has_dynamic_k(args.rule) ? args.num_images * args.num_priors : 0),
        predictions_(args.num_images),
        sorted_(args.num_images),
        places_(admitted_.empty() ? 0 : args.priors.size(0)) {}

  std::tuple<Tensor, Tensor, Tensor, Tensor> run() {
    if (args_.num_boxes() > 0) {
      fill_blocks();
      if (!places_.empty()) {
        each_box([&](int64_t image, int64_t box, Scratch& scratch) { admit(image, box, scratch); });
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
  void fill_blocks() {
    for (int64_t image = 0; image < args_.num_images; ++image) {
      const PredictionPairs pairs = args_.pairs(image);
      Blocks& own = predictions_[image];
      own.resize(args_.num_priors);
      sort_predictions(image);
      const int32_t* sorted = sorted_[image].data();
      const bool with_places = image < int64_t(places_.size());
      if (with_places) places_[image].resize(args_.num_priors);
      in_turns(0, own.count(), kPriorsPerTask / kBlock, [&](int64_t first, int64_t last) {
        for (int64_t block = first; block < last; ++block) {
          own.fill(block, [&](int64_t i) { return load_box(pairs.boxes, sorted[i]); });
          if (!with_places) continue;
          // Where the middle of a box is that has the prior in its center, rounded up.
          const bool with_center = args_.rule == PredictionRule::kSimOta;
          places_[image].fill(block, [&](int64_t i) {
            const float* p = pairs.priors + 4 * i;
            const float r = float(args_.weights[2]) * 1.001f;
            const float x = with_center ? r * p[2] + 1e-5f * std::fabs(p[0]) : 0.0f;
            const float y = with_center ? r * p[3] + 1e-5f * std::fabs(p[1]) : 0.0f;
            return Box<float>{p[0] - x, p[1] - y, p[0] + x, p[1] + y};
          });
        }
      });
    }
  }

  // Brings predictions of one scale and place together: a block of them has tight bounds.
  void sort_predictions(int64_t image) {
    std::vector<int32_t>& sorted = sorted_[image];
    sorted.resize(args_.num_priors);
    if (args_.gt_begin[image + 1] - args_.gt_begin[image] < kFewBoxes) {
      std::iota(sorted.begin(), sorted.end(), 0);
      return;
    }
    const float* boxes = args_.pairs(image).boxes;
    std::vector<int32_t> cell(args_.num_priors), begin(kScales * kCells * kCells + 1);
    for (int64_t i = 0; i < args_.num_priors; ++i) {
      cell[i] = cell_of(boxes, i);
      ++begin[cell[i] + 1];
    }
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    for (int64_t i = 0; i < args_.num_priors; ++i) sorted[begin[cell[i]]++] = int32_t(i);
  }

  static int32_t cell_of(const float* boxes, int64_t i) {
    const float size = area(load_box(boxes, i));
    const Point middle = center(boxes, i);
    if (!is_finite(size) || !is_finite(middle.x) || !is_finite(middle.y)) return 0;
    int scale = 0;  // cells are about as large as boxes, 32 pixels or more
    while (scale < kScales - 1 && size > float(1 << (2 * scale + 10))) ++scale;
    const float side = float(32 << scale), last = kCells - 1;
    const int x = int(std::min(std::max(middle.x / side, 0.0f), last));
    const int y = int(std::min(std::max(middle.y / side, 0.0f), last));
    return (scale * kCells + y) * kCells + x;
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

  void admit(int64_t image, int64_t box, Scratch& scratch) {
    const PredictionPairs pairs = args_.pairs(image);
    const Target target = targets_[box];
    uint8_t* admitted = admitted_.data() + image * args_.num_priors;
    const Blocks& places = places_[places_.size() > 1 ? image : 0];
    // A prior in the box or near its middle. The middle may lie outside: of a mask.
    Box<float> around = load_box(target.box, 0);
    around.x1 = std::min(around.x1, target.center.x),
    around.x2 = std::max(around.x2, target.center.x);
    around.y1 = std::min(around.y1, target.center.y),
    around.y2 = std::max(around.y2, target.center.y);
    places.visit(around, scratch.touched, [&](int64_t first, int64_t count) {
      for (int64_t i = first; i < first + count; ++i) {
        if (pairs.admits(i, target)) __atomic_store_n(admitted + i, 1, __ATOMIC_RELAXED);
      }
    });
  }

  void claim(int64_t image, int64_t box, Scratch& scratch) {
    const PredictionPairs pairs = args_.pairs(image);
    const Target target = targets_[box];
    const Box<float> gt = load_box(target.box, 0);
    const bool dynamic = has_dynamic_k(args_.rule);
    const uint8_t* admitted = dynamic ? admitted_.data() + image * args_.num_priors : nullptr;
    Ranking best{scratch.best.data(), int(args_.topk), 0};
    Ranking overlaps{scratch.overlaps.data(), int(args_.topk), 0};
    const int32_t* sorted = sorted_[image].data();
    float iou[kBlock] = {};
    uint8_t above[kBlock];
    bool is_bad = false;
    // Pairs with no more than this overlap rank among neither.
    float floor = 0;
    const auto offer = [&](int64_t i, float measure) {
      const uint64_t key = pairs.rank(i, target, measure, best.worst(), &is_bad);
      if (is_bad) report(image, i);
      if (key == kNever) return;
      best.offer(key | uint64_t(i));
      if (best.count < best.capacity) return;
      floor = pairs.overlap_floor(best.worst());
      if (dynamic) {
        const uint64_t lowest = overlaps.worst();
        floor = lowest == kNever ? 0 : std::min(floor, -rank_value(lowest));
      }
    };
    // Scores lie far apart in memory, so they are fetched some pairs ahead.
    int64_t ahead[kAhead];
    float iou_ahead[kAhead];
    int waiting = 0;
    const auto offer_waiting = [&] {
      for (int n = 0; n < waiting; ++n) {
        const int64_t i = ahead[n];
        if (!(iou_ahead[n] > floor)) continue;
        if (dynamic) overlaps.offer(rank_key(false, -iou_ahead[n], 0));
        offer(i, pairs.overlap_from(iou_ahead[n], i, target.box));
      }
      waiting = 0;
    };
    const auto visit = [&](int64_t first, int64_t count) {
      const Blocks& own = predictions_[image];
      const float most = args_.similarity.kind == SimilarityKind::kIoU
          ? own.overlaps(gt, first, count, kUnionFloor, iou)
          : own.similarities(args_.similarity, gt, first, count, floor, iou);
      if (most <= floor) return;
      mark_above(iou, floor, above);
      each_marked(above, count, [&](int64_t k) {
        const int64_t i = sorted[first + k];
        if (dynamic && !admitted[i]) return;
        if (args_.rule == PredictionRule::kContained && !pairs.is_inside(i, target.box)) return;
        __builtin_prefetch(pairs.scores + i * pairs.num_classes + target.label);
        ahead[waiting] = i;
        iou_ahead[waiting] = iou[k];
        if (++waiting == kAhead) offer_waiting();
      });
    };
    predictions_[image].visit_above(
        gt, args_.similarity, floor, scratch.limits, scratch.later, visit);
    offer_waiting();
    if (dynamic) {
      double sum = 0;
      for (int k = 0; k < overlaps.count; ++k) {
        sum = add_rn(sum, double(-rank_value(overlaps.keys[k])));
      }
      best.capacity = dynamic_k(sum);
      best.count = std::min(best.count, best.capacity);
      // Priors whose predictions lie apart, if they can rank among the best.
      if (best.worst() > pairs.lowest_apart()) {
        for (int64_t first = 0; first < args_.num_priors; first += kBlock) {
          const int64_t count = std::min(kBlock, args_.num_priors - first);
          predictions_[image].overlaps(gt, first, count, kUnionFloor, iou);
          for (int64_t k = 0; k < count; ++k) {
            const int64_t i = sorted[first + k];
            if (admitted[i] && iou[k] == 0) offer(i, 0.0f);
          }
        }
      }
    }
    const int64_t begin = image * args_.num_priors;
    for (int k = 0; k < best.count; ++k) {
      const int64_t i = rank_index(best.keys[k]);
      if (args_.rule == PredictionRule::kTaskAligned && !pairs.is_inside(i, target.box)) continue;
      const float measure = pairs.overlap_from(pairs.iou(i, target.box), i, target.box);
      const uint32_t own = uint32_t(box - args_.gt_begin[image]);
      if (raise_to(claims_ + begin + i, claim_key(measure, own))) {
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
      const PredictionPairs& pairs, int64_t image, int64_t prior, int64_t claimant,
      std::vector<uint8_t>& touched) const {
    const int64_t begin = args_.gt_begin[image], end = args_.gt_begin[image + 1];
    Contest contest{pairs, targets_, prior, begin, kNever};
    contest.consider(claimant);  // its rank rules out most others early
    const Box<float> predicted = load_box(pairs.boxes, prior);
    neighbors_[image].visit(predicted, touched, [&](int64_t first, int64_t count) {
      for (int64_t k = first; k < first + count; ++k) contest.consider(order_[begin + k]);
    });
    if (has_dynamic_k(pairs.rule) && contest.lowest > pairs.lowest_apart()) {
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
      std::vector<uint8_t> touched;
      for (int64_t i = next_claim(claims_, first, last); i < last;
           i = next_claim(claims_, i + 1, last)) {
        const int64_t image = i / args_.num_priors, prior = i % args_.num_priors;
        const PredictionPairs pairs = args_.pairs(image);
        const int64_t begin = args_.gt_begin[image];
        int64_t box = claim_box(claims_[i]);
        if (contested_[i] && args_.rule != PredictionRule::kTaskAligned) {
          box = winner(pairs, image, prior, box, touched);
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
  std::vector<uint8_t> contested_, admitted_;
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
