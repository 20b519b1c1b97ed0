// ATSS assignment on the CPU: threads process boxes, and an atomic maximum settles claims on priors.
#include <algorithm>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "atss_args.h"
#include "claims.h"
#include "nearest_search.h"
#include "nearest_window.h"
#include "turns.h"
#include "vectorize.h"

namespace negvision {
namespace {

// Work per thread of about a millisecond. With less, waking threads costs more than it saves on a busy
// machine, such as one that trains with loader processes.
constexpr int64_t kDistancesPerTask = 1 << 18;
constexpr int64_t kPriorsPerTask = 1 << 17;
constexpr int64_t kDistancesInWindow = 64;

// Whether every prior of a row has the x of the prior above it in the first row and the y of the first
// prior in its own row, bit for bit, as in grids made by adding shifts. The row is then in place if
// the first row is.
NV_VECTORIZED static bool repeats_first_row(
    const float* row, const float* first_row, int64_t count) {
  // Bits of two priors. Written out, because compilers transpose them otherwise.
  typedef uint32_t Pair __attribute__((vector_size(32)));
  constexpr Pair x_only = {~0u, 0, ~0u, 0, ~0u, 0, ~0u, 0};
  Pair y_of_row, here, above, differing = {};
  for (int i = 0; i < 8; ++i) y_of_row[i] = i % 2 ? bits_of(row[i % 4]) : 0;
  int64_t k = 0;
  for (; k + 2 <= count; k += 2) {
    __builtin_memcpy(&here, row + 4 * k, sizeof(Pair));
    __builtin_memcpy(&above, first_row + 4 * k, sizeof(Pair));
    differing |= here ^ ((above & x_only) | y_of_row);
  }
  uint32_t any = 0;
  for (int i = 0; i < 8; ++i) any |= differing[i];
  for (int64_t i = 4 * k; i < 4 * count; ++i) {
    any |= bits_of(row[i]) ^ bits_of(i % 2 ? row[i % 4] : first_row[i]);
  }
  return any == 0;
}

bool row_is_in_place(
    const float* row, const float* columns, int64_t count, float row_y, float deviation) {
  int in_place = 1;
  for (int64_t k = 0; k < count; ++k) {
    in_place &= is_in_place(center(row, k), columns[k], row_y, deviation);
  }
  return in_place != 0;
}

Level describe_level(const float* priors, int64_t begin, int64_t size) {
  const int64_t end = begin + size;
  int64_t location = begin, row = begin;
  while (location < end && !leaves_location(priors, begin, location)) ++location;
  for (row = location; row < end && !leaves_row(priors, begin, row);) ++row;
  Level level = guess_grid(begin, size, location - begin, row - begin);
  if (level.row_length == 0) return level;
  level.deviation = allowed_deviation(priors, level);
  const int64_t row_step = level.row_length * level.per_location, rows = size / row_step;
  std::vector<float> columns(row_step);
  bool is_grid = true;
  for (int64_t k = 0; k < row_step; ++k) {
    const int64_t c = k / level.per_location;
    columns[k] = column_of(priors, level, c);
    if (k > 0 && c > 0 && k % level.per_location == 0) is_grid &= columns[k - 1] < columns[k];
  }
  const float* first_row = priors + 4 * begin;
  bool is_exact = row_is_in_place(first_row, columns.data(), row_step, row_of(priors, level, 0), 0);
  for (int64_t r = 0; r < rows && is_grid; ++r) {
    const float row_y = row_of(priors, level, r);
    const float* row = first_row + 4 * r * row_step;
    is_grid = r == 0 || row_of(priors, level, r - 1) < row_y;
    if (r > 0 && repeats_first_row(row, first_row, row_step)) continue;
    is_exact &= r == 0;
    is_grid &= row_is_in_place(row, columns.data(), row_step, row_y, level.deviation);
  }
  if (is_exact) level.deviation = 0;
  if (!is_grid) level.row_length = 0;
  return level;
}

// The levels of each image, or of all images if they share their priors.
std::vector<Level> describe_levels(const AtssArgs& args) {
  const float* priors = static_cast<const float*>(args.priors.const_data_ptr());
  const int64_t count = args.num_levels();
  std::vector<Level> levels(args.priors.size(0) * count);
  const int64_t levels_per_task =
      std::max<int64_t>(1, kPriorsPerTask * count / std::max<int64_t>(1, args.num_priors));
  in_turns(0, int64_t(levels.size()), levels_per_task, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t l = i % count;
      levels[i] = describe_level(
          priors + i / count * args.num_priors * 4, args.level_begin[l],
          args.level_begin[l + 1] - args.level_begin[l]);
    }
  });
  return levels;
}

// The state of every prior of every image; empty if all are candidates.
std::vector<uint8_t> prior_states(const AtssArgs& args) {
  if (!args.valid && !args.has_ignored()) return {};
  const float* priors = static_cast<const float*>(args.priors.const_data_ptr());
  const bool* valid = args.valid ? static_cast<const bool*>(args.valid->const_data_ptr()) : nullptr;
  const float* ignored =
      args.has_ignored() ? static_cast<const float*>(args.ignore_boxes->const_data_ptr()) : nullptr;
  std::vector<uint8_t> state(args.num_images * args.num_priors);
  const int64_t priors_per_task = kPriorsPerTask / (1 + args.ignored_begin.back());
  in_turns(0, int64_t(state.size()), priors_per_task, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t image = i / args.num_priors, prior = i % args.num_priors;
      bool is_excluded = valid && !valid[i];
      if (!is_excluded && ignored) {
        const float* own = priors + (args.priors_are_shared() ? 0 : image * args.num_priors * 4);
        is_excluded = is_ignored(
            own, prior, ignored + 4 * args.ignored_begin[image],
            args.ignored_begin[image + 1] - args.ignored_begin[image], args.ignore_iof_thr);
      }
      state[i] = is_excluded ? kExcluded : kCandidate;
    }
  });
  return state;
}

// Candidates of one box, level by level.
struct Candidates {
  std::vector<float> distance, overlap;
  std::vector<int64_t> index;
  std::vector<Box<float>> box;
  explicit Candidates(int64_t capacity)
      : distance(capacity), overlap(capacity), index(capacity + kWindowSize), box(capacity) {}
};

// The IoU of the chosen priors with one box. Boxes are gathered first, so that the rest vectorizes.
NV_VECTORIZED static void overlaps_with(
    const float* gt_box, const float* priors, const int64_t* index, int64_t count,
    Box<float>* boxes, float* out) {
  const Box<float> gt = load_box(gt_box, 0);
  for (int64_t i = 0; i < count; ++i) boxes[i] = load_box(priors, index[i]);
  for (int64_t i = 0; i < count; ++i) {
    out[i] = overlap(boxes[i], gt, OverlapMode::kIoU, kUnionFloor);
  }
}

class Assignment {
 public:
  explicit Assignment(const AtssArgs& args)
      : args_(args),
        levels_(describe_levels(args)),
        state_(prior_states(args)),
        gt_inds_(
            torch::stable::new_empty(
                args.priors, {args.num_images, args.num_priors}, ScalarType::Long)),
        // Claims use the memory of the result: both need 8 bytes per prior.
        claims_(static_cast<uint64_t*>(gt_inds_.mutable_data_ptr())) {
    std::fill(claims_, claims_ + args.num_images * args.num_priors, 0);
  }

  void claim_all() {
    if (args_.num_boxes() == 0) return;
    in_turns(0, args_.num_boxes(), boxes_per_task(), [&](int64_t first, int64_t last) {
      Candidates candidates(args_.num_candidates);
      int64_t image = std::upper_bound(args_.gt_begin.begin(), args_.gt_begin.end(), first) -
          args_.gt_begin.begin() - 1;
      for (int64_t box = first; box < last; ++box) {
        while (box >= args_.gt_begin[image + 1]) ++image;
        claim(image, box, candidates);
      }
    });
  }

  // Converts the claims to the result; call it once.
  std::tuple<Tensor, Tensor, Tensor> results() {
    const std::vector<int64_t> shape{args_.num_images, args_.num_priors};
    Tensor max_overlaps = torch::stable::new_empty(args_.priors, shape);
    Tensor labels = torch::stable::new_empty(args_.priors, shape, ScalarType::Long);
    float* overlaps = static_cast<float*>(max_overlaps.mutable_data_ptr());
    int64_t* label_of = static_cast<int64_t*>(labels.mutable_data_ptr());
    int64_t* inds = static_cast<int64_t*>(gt_inds_.mutable_data_ptr());
    in_turns(
        0, args_.num_images * args_.num_priors, kPriorsPerTask, [&](int64_t first, int64_t last) {
          std::fill(overlaps + first, overlaps + last, 0.0f);
          std::fill(label_of + first, label_of + last, -1);
          for (int64_t i = next_claim(claims_, first, last); i < last;
               i = next_claim(claims_, i + 1, last)) {
            const uint64_t key = claims_[i];
            overlaps[i] = claim_overlap(key);
            label_of[i] = label(args_.gt_begin[i / args_.num_priors] + claim_box(key));
            inds[i] = claim_box(key) + 1;
          }
          for (int64_t i = first; i < last && !state_.empty(); ++i) {
            if (state_[i] == kExcluded) inds[i] = -1;
          }
        });
    return {gt_inds_, max_overlaps, labels};
  }

 private:
  int64_t label(int64_t box) const {
    return args_.gt_labels ? static_cast<const int64_t*>(args_.gt_labels->const_data_ptr())[box]
                           : 0;
  }

  int64_t boxes_per_task() const {
    int64_t distances = 1;
    for (int64_t l = 0; l < args_.num_levels(); ++l) {
      distances += levels_[l].row_length > 0 ? kDistancesInWindow : levels_[l].size;
    }
    return std::max<int64_t>(1, kDistancesPerTask / distances);
  }

  void claim(int64_t image, int64_t box, Candidates& found) {
    const float* gt = static_cast<const float*>(args_.gt_boxes.const_data_ptr()) + 4 * box;
    if (!is_proper(gt)) return;
    const int64_t own_label = label(box);
    if (args_.pred_boxes && (own_label < 0 || own_label >= args_.num_classes)) return;

    const int64_t own = args_.priors_are_shared() ? 0 : image;
    const float* priors =
        static_cast<const float*>(args_.priors.const_data_ptr()) + own * args_.num_priors * 4;
    const uint8_t* state = state_.empty() ? nullptr : state_.data() + image * args_.num_priors;
    const Point target = center(gt, 0);
    int64_t count = 0;
    for (int64_t l = 0; l < args_.num_levels(); ++l) {
      const Level& level = levels_[own * args_.num_levels() + l];
      const int64_t k = std::min(args_.topk, level.size);
      int64_t* index = found.index.data() + count;
      if (!state && fits_window(level, k) && nearest_in_window(priors, level, target, k, index)) {
        count += k;
        continue;
      }
      Nearest nearest(found.distance.data() + count, index, int(k));
      search_level(priors, state, level, target, nearest);
      count += nearest.count;
    }

    if (!args_.is_plain_iou()) {
      const Overlaps overlap_of = overlaps_of(image, priors);
      for (int64_t i = 0; i < count; ++i)
        found.overlap[i] = overlap_of(found.index[i], gt, own_label);
    } else {
      overlaps_with(gt, priors, found.index.data(), count, found.box.data(), found.overlap.data());
    }
    const double threshold = adaptive_threshold(found.overlap.data(), count);
    const Box<float> reach = enlarged(gt, args_.min_size);
    uint64_t* claims = claims_ + image * args_.num_priors;
    const uint32_t box_in_image = uint32_t(box - args_.gt_begin[image]);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t prior = found.index[i];
      if (double(found.overlap[i]) >= threshold && lies_inside(center(priors, prior), reach)) {
        raise_to(claims + prior, claim_key(found.overlap[i], box_in_image));
      }
    }
  }

  Overlaps overlaps_of(int64_t image, const float* priors) const {
    if (!args_.pred_boxes) return {priors, nullptr, nullptr, 0, 0, args_.similarity};
    const int64_t first = image * args_.num_priors;
    return {
        priors,
        static_cast<const float*>(args_.pred_boxes->const_data_ptr()) + 4 * first,
        static_cast<const float*>(args_.pred_scores->const_data_ptr()) + first * args_.num_classes,
        args_.num_classes,
        args_.alpha,
        args_.similarity};
  }

  const AtssArgs& args_;
  std::vector<Level> levels_;
  std::vector<uint8_t> state_;
  Tensor gt_inds_;
  uint64_t* claims_;
};

std::tuple<Tensor, Tensor, Tensor> atss_assign(
    const Tensor& priors, std::vector<int64_t> num_level_priors, const Tensor& gt_boxes,
    std::vector<int64_t> num_gts, int64_t topk, OptionalTensor valid, OptionalTensor ignore_boxes,
    std::vector<int64_t> num_ignored, double ignore_iof_thr, OptionalTensor pred_boxes,
    OptionalTensor pred_scores, OptionalTensor gt_labels, double alpha, int64_t similarity,
    std::vector<double> scale, double min_size) {
  const AtssArgs args(
      priors, num_level_priors, gt_boxes, num_gts, topk, valid, ignore_boxes, num_ignored,
      ignore_iof_thr, pred_boxes, pred_scores, gt_labels, alpha, similarity, scale, min_size);
  Assignment assignment(args);
  assignment.claim_all();
  return assignment.results();
}

}  // namespace
}  // namespace negvision

STABLE_TORCH_LIBRARY_IMPL(negvision, CPU, m) {
  m.impl("atss_assign", TORCH_BOX(&negvision::atss_assign));
}
