// Changes of the colours of an image, (H, W, 3) of uint8 in BGR, in one pass: some hundred pixels at
// a time go through all steps while they are near. Hue and saturation are those of OpenCV's 8-bit
// HSV (hue 0 ... 179), the same bits: its integer tables are computed here, and it multiplies and
// subtracts in one rounding. Where it works on `block` columns at a time it cuts off what is behind
// the point, and in the columns that remain it rounds. The caller makes sure that all of this is so
// (negvision/data/images/colours.py), as another processor or release may differ.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>

#include "image_view.h"
#include "vectorize.h"

namespace negvision {
namespace {

using torch::stable::Tensor;

constexpr int64_t kPixels = 512;

// Pixels by channel: blue, green, red, or hue, saturation, value. Integers of 32 bits, as all
// arithmetic is of numbers as wide, and loops without a change of width become the best vectors.
struct alignas(64) Tile {
  int32_t channels[3][kPixels];
};

enum class Step : int64_t { kBrightness, kContrast, kSaturation, kHue };

// The nearest integer, ties to even, of less than 2 to the power of 22: 1.5 times 2 to the power of 23
// leaves no bit behind the point, and the integer in the lowest bits.
inline int32_t nearest(float x) {
  const float shifted = x + 12582912.f;
  int32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  return bits - 0x4b400000;
}

// In this order of comparison, processors have one instruction for each.
inline float clip(float x, float most) {
  x = x > 0.f ? x : 0.f;
  return x < most ? x : most;
}

NV_VECTORIZED_WIDE void add(int32_t* __restrict values, int64_t count, float amount) {
  for (int64_t i = 0; i < count; ++i) {
    values[i] = static_cast<int32_t>(clip(static_cast<float>(values[i]) + amount, 255.f));
  }
}

NV_VECTORIZED_WIDE void scale(int32_t* __restrict values, int64_t count, float amount) {
  for (int64_t i = 0; i < count; ++i) {
    values[i] = static_cast<int32_t>(clip(static_cast<float>(values[i]) * amount, 255.f));
  }
}

NV_VECTORIZED_WIDE void turn(int32_t* __restrict hues, int64_t count, int32_t by) {
  for (int64_t i = 0; i < count; ++i) {
    const int32_t hue = hues[i] + by;
    hues[i] = hue >= 180 ? hue - 180 : hue;
  }
}

// Quotients by 12-bit fractions, as OpenCV has them in tables.
NV_VECTORIZED_WIDE void to_hsv(Tile& tile, int64_t count) {
  int32_t* __restrict first = tile.channels[0];
  int32_t* __restrict second = tile.channels[1];
  int32_t* __restrict third = tile.channels[2];
  for (int64_t i = 0; i < count; ++i) {
    const int32_t b = first[i], g = second[i], r = third[i];
    const int32_t value = std::max(b, std::max(g, r));
    const int32_t range = value - std::min(b, std::min(g, r));
    const int32_t by_value = nearest(1044480.f / static_cast<float>(std::max(value, 1)));
    const int32_t by_range = nearest(122880.f / static_cast<float>(std::max(range, 1)));
    const int32_t sector = value == r ? g - b : (value == g ? b - r + 2 * range : r - g + 4 * range);
    const int32_t hue = (sector * by_range + 2048) >> 12;
    first[i] = hue < 0 ? hue + 180 : hue;
    second[i] = (range * by_value + 2048) >> 12;
    third[i] = value;
  }
}

// One channel from the share of the saturation that is taken off it.
inline float channel_of(float value, float saturation, float share) {
  return value * std::fma(-saturation, clip(share, 1.f), 1.f) * 255.f;
}

template <bool kRounds>
inline __attribute__((always_inline)) void hsv_to_bgr(Tile& tile, int64_t count) {
  int32_t* __restrict first = tile.channels[0];
  int32_t* __restrict second = tile.channels[1];
  int32_t* __restrict third = tile.channels[2];
  for (int64_t i = 0; i < count; ++i) {
    const float hue = static_cast<float>(first[i]) * (6.f / 180.f);  // 0 ... 6
    const float saturation = static_cast<float>(second[i]) * (1.f / 255.f);
    const float value = static_cast<float>(third[i]) * (1.f / 255.f);
    const float b = channel_of(value, saturation, std::max(3.f - hue, hue - 5.f));
    const float g = channel_of(value, saturation, std::max(1.f - hue, hue - 3.f));
    const float r = channel_of(value, saturation, std::min(hue - 1.f, 5.f - hue));
    first[i] = kRounds ? nearest(b) : static_cast<int32_t>(b);
    second[i] = kRounds ? nearest(g) : static_cast<int32_t>(g);
    third[i] = kRounds ? nearest(r) : static_cast<int32_t>(r);
  }
}
NV_VECTORIZED_WIDE void to_bgr_cut(Tile& tile, int64_t count) { hsv_to_bgr<false>(tile, count); }
NV_VECTORIZED_WIDE void to_bgr_rounded(Tile& tile, int64_t count) {
  hsv_to_bgr<true>(tile, count);
}

NV_VECTORIZED_WIDE void separate(
    const uint8_t* __restrict pixels, int64_t count, uint8_t* __restrict channels) {
  for (int64_t i = 0; i < count; ++i) {
    channels[i] = pixels[3 * i];
    channels[kPixels + i] = pixels[3 * i + 1];
    channels[2 * kPixels + i] = pixels[3 * i + 2];
  }
}

NV_VECTORIZED_WIDE void separate_reversed(
    const uint8_t* __restrict pixels, int64_t count, uint8_t* __restrict channels) {
  for (int64_t i = 0; i < count; ++i) {
    channels[count - 1 - i] = pixels[3 * i];
    channels[kPixels + count - 1 - i] = pixels[3 * i + 1];
    channels[2 * kPixels + count - 1 - i] = pixels[3 * i + 2];
  }
}

NV_VECTORIZED_WIDE void widen(
    const uint8_t* __restrict bytes, int64_t count, int32_t* __restrict values) {
  for (int64_t i = 0; i < count; ++i) values[i] = bytes[i];
}

NV_VECTORIZED_WIDE void narrow(
    const int32_t* __restrict values, int64_t count, uint8_t* __restrict bytes) {
  for (int64_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(values[i]);
}

struct Steps {
  std::vector<int64_t> kinds;
  std::vector<double> amounts;

  void apply(Tile& tile, int64_t count, bool rounds) const {
    const auto to_bgr = rounds ? to_bgr_rounded : to_bgr_cut;
    for (size_t i = 0; i < kinds.size(); ++i) {
      const auto amount = static_cast<float>(amounts[i]);
      switch (static_cast<Step>(kinds[i])) {
        case Step::kBrightness:
          for (auto& channel : tile.channels) add(channel, count, amount);
          break;
        case Step::kContrast:
          for (auto& channel : tile.channels) scale(channel, count, amount);
          break;
        case Step::kSaturation:
          to_hsv(tile, count);
          scale(tile.channels[1], count, amount);
          to_bgr(tile, count);
          break;
        case Step::kHue:
          to_hsv(tile, count);
          turn(tile.channels[0], count, static_cast<int32_t>(amount));
          to_bgr(tile, count);
          break;
      }
    }
  }
};

Tensor distort_colours(
    const Tensor& image, bool rows_reversed, bool columns_reversed, std::vector<int64_t> kinds,
    std::vector<double> amounts, int64_t block) {
  const ImageView view(image, rows_reversed, columns_reversed);
  STD_TORCH_CHECK(
      view.is_packed_colour() && image.scalar_type() == torch::headeronly::ScalarType::Byte,
      "distort_colours: rows must be of three channels of uint8, one pixel after the other");
  STD_TORCH_CHECK(
      kinds.size() == amounts.size(), "distort_colours: ", kinds.size(), " steps and ",
      amounts.size(), " amounts");
  STD_TORCH_CHECK(block > 0, "distort_colours: block must be 1 or more, got ", block);
  for (size_t i = 0; i < kinds.size(); ++i) {
    const auto step = static_cast<Step>(kinds[i]);
    STD_TORCH_CHECK(
        step >= Step::kBrightness && step <= Step::kHue, "distort_colours: no step ", kinds[i]);
    STD_TORCH_CHECK(
        step != Step::kHue || (amounts[i] >= 0 && amounts[i] < 180),
        "distort_colours: a turn must be 0 ... 179, got ", amounts[i]);
  }

  const Steps steps{std::move(kinds), std::move(amounts)};
  Tensor out = torch::stable::new_empty(image, {3, view.height, view.width});
  const auto* pixels = static_cast<const uint8_t*>(image.const_data_ptr());
  auto* planes = static_cast<uint8_t*>(out.mutable_data_ptr());
  const int64_t in_blocks = view.width / block * block;
  Tile tile{};
  alignas(64) uint8_t bytes[3 * kPixels] = {};
  for (int64_t y = 0; y < view.height; ++y) {
    const uint8_t* row = pixels + view.row_start(y);
    for (int64_t x = 0, count; x < view.width; x += count) {
      const bool rounds = x >= in_blocks;
      count = std::min(kPixels, (rounds ? view.width : in_blocks) - x);
      const int64_t start = view.columns_reversed ? view.width - x - count : x;
      (view.columns_reversed ? separate_reversed : separate)(row + 3 * start, count, bytes);
      // Whole vectors; what lies behind the pixels is of some tile before.
      const int64_t padded = (count + 31) / 32 * 32;
      for (int64_t c = 0; c < 3; ++c) widen(bytes + c * kPixels, padded, tile.channels[c]);
      steps.apply(tile, padded, rounds);
      for (int64_t c = 0; c < 3; ++c) {
        narrow(tile.channels[c], count, planes + (c * view.height + y) * view.width + x);
      }
    }
  }
  return out;
}

}  // namespace
}  // namespace negvision

STABLE_TORCH_LIBRARY_IMPL(negvision, CPU, m) {
  m.impl("distort_colours", TORCH_BOX(&negvision::distort_colours));
}
