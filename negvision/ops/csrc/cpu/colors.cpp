// Color distortions of an image, (H, W, 3) uint8 BGR, in one pass: a few hundred pixels at a time go
// through all steps while they are in cache.
//
// Every step maps integers to integers, 0 ... 255, rounded to nearest with halves up:
//   brightness  x + amount, in float32
//   contrast    x * amount, in float32
//   saturation  to 8-bit HSV, S * amount in float32, back to BGR
//   hue         to 8-bit HSV, (H + amount) mod 180, back to BGR
// BGR to HSV is OpenCV's 8-bit conversion (hue 0 ... 179), whose quotients are 12-bit fractions. HSV
// to BGR is exact: a channel is V * (7650 - S * k) / 7650 with k in 0 ... 30, the channel's share of
// the hue in steps of 1/30.
#include <algorithm>
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

// Pixels by channel: blue, green, red, or hue, saturation, value. 32-bit integers, as wide as the
// floats: loops without a change of width vectorize best.
struct alignas(64) Tile {
  int32_t channels[3][kPixels];
};

enum class Step : int64_t { kBrightness, kContrast, kSaturation, kHue };

// The nearest integer, ties to even, for |x| < 2^22: adding 1.5 * 2^23 drops the fraction and leaves the
// integer in the lowest bits.
inline int32_t nearest(float x) {
  const float shifted = x + 12582912.f;
  int32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  return bits - 0x4b400000;
}

// Rounds to the nearest integer in 0 ... 255, halves up. In this order of comparison, processors have
// one instruction for each bound.
inline int32_t to_byte(float x) {
  x = x > 0.f ? x : 0.f;
  x = x < 255.f ? x : 255.f;
  return static_cast<int32_t>(x + 0.5f);
}

NV_VECTORIZED_WIDE void add(int32_t* __restrict values, int64_t count, float amount) {
  for (int64_t i = 0; i < count; ++i) values[i] = to_byte(static_cast<float>(values[i]) + amount);
}

NV_VECTORIZED_WIDE void scale(int32_t* __restrict values, int64_t count, float amount) {
  for (int64_t i = 0; i < count; ++i) values[i] = to_byte(static_cast<float>(values[i]) * amount);
}

NV_VECTORIZED_WIDE void turn(int32_t* __restrict hues, int64_t count, int32_t by) {
  for (int64_t i = 0; i < count; ++i) {
    const int32_t hue = hues[i] + by;
    hues[i] = hue >= 180 ? hue - 180 : hue;
  }
}

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
    const int32_t sector =
        value == r ? g - b : (value == g ? b - r + 2 * range : r - g + 4 * range);
    const int32_t hue = (sector * by_range + 2048) >> 12;
    first[i] = hue < 0 ? hue + 180 : hue;
    second[i] = (range * by_value + 2048) >> 12;
    third[i] = value;
  }
}

// round(V * (7650 - S * k) / 7650), halves up. The numerator is below 2^21 and exact; the extra half
// keeps the product with the inverse on the right side of every integer.
inline int32_t channel_of(float value, float saturation, float share) {
  share = share > 0.f ? share : 0.f;
  share = share < 30.f ? share : 30.f;
  return static_cast<int32_t>((value * (7650.f - saturation * share) + 3825.5f) * (1.f / 7650.f));
}

NV_VECTORIZED_WIDE void to_bgr(Tile& tile, int64_t count) {
  int32_t* __restrict first = tile.channels[0];
  int32_t* __restrict second = tile.channels[1];
  int32_t* __restrict third = tile.channels[2];
  for (int64_t i = 0; i < count; ++i) {
    const auto hue = static_cast<float>(first[i]);
    const auto saturation = static_cast<float>(second[i]), value = static_cast<float>(third[i]);
    first[i] = channel_of(value, saturation, std::max(90.f - hue, hue - 150.f));
    second[i] = channel_of(value, saturation, std::max(30.f - hue, hue - 90.f));
    third[i] = channel_of(value, saturation, std::min(hue - 30.f, 150.f - hue));
  }
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

  void apply(Tile& tile, int64_t count) const {
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

Tensor distort_colors(
    const Tensor& image, bool rows_reversed, bool columns_reversed, std::vector<int64_t> kinds,
    std::vector<double> amounts) {
  const ImageView view(image, rows_reversed, columns_reversed);
  STD_TORCH_CHECK(
      view.is_packed_color() && image.scalar_type() == torch::headeronly::ScalarType::Byte,
      "distort_colors: the image must be packed uint8 with three channels");
  STD_TORCH_CHECK(
      kinds.size() == amounts.size(), "distort_colors: ", kinds.size(), " steps and ",
      amounts.size(), " amounts");
  for (size_t i = 0; i < kinds.size(); ++i) {
    const auto step = static_cast<Step>(kinds[i]);
    STD_TORCH_CHECK(
        step >= Step::kBrightness && step <= Step::kHue, "distort_colors: unknown step ", kinds[i]);
    STD_TORCH_CHECK(
        step != Step::kHue || (amounts[i] >= 0 && amounts[i] < 180),
        "distort_colors: hue must turn by 0 ... 179, got ", amounts[i]);
  }

  const Steps steps{std::move(kinds), std::move(amounts)};
  Tensor out = torch::stable::new_empty(image, {3, view.height, view.width});
  const auto* pixels = static_cast<const uint8_t*>(image.const_data_ptr());
  auto* planes = static_cast<uint8_t*>(out.mutable_data_ptr());
  Tile tile{};
  alignas(64) uint8_t bytes[3 * kPixels] = {};
  for (int64_t y = 0; y < view.height; ++y) {
    const uint8_t* row = pixels + view.row_start(y);
    for (int64_t x = 0, count; x < view.width; x += count) {
      count = std::min(kPixels, view.width - x);
      const int64_t start = view.columns_reversed ? view.width - x - count : x;
      (view.columns_reversed ? separate_reversed : separate)(row + 3 * start, count, bytes);
      // Full vectors; the values past the last pixel are left over from an earlier tile.
      const int64_t padded = (count + 31) / 32 * 32;
      for (int64_t c = 0; c < 3; ++c) widen(bytes + c * kPixels, padded, tile.channels[c]);
      steps.apply(tile, padded);
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
  m.impl("distort_colors", TORCH_BOX(&negvision::distort_colors));
}
