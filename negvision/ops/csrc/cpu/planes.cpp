// From pixels, (H, W, C), to planes, (C, H, W). Many processes load images, so each uses one thread.
#include <cstdint>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "image_view.h"
#include "vectorize.h"

namespace negvision {
namespace {

using torch::stable::Tensor;

// The usual row with three values per pixel, which compilers turn into shuffles. A macro for bytes and
// floats: target_clones does not work on templates.
#define NV_SPLIT_ROW(T)                                                                  \
  NV_VECTORIZED void split_row(                                                          \
      const T* __restrict row, int64_t width, T* __restrict first, T* __restrict second, \
      T* __restrict third) {                                                             \
    for (int64_t x = 0; x < width; ++x) {                                                \
      first[x] = row[3 * x];                                                             \
      second[x] = row[3 * x + 1];                                                        \
      third[x] = row[3 * x + 2];                                                         \
    }                                                                                    \
  }                                                                                      \
  NV_VECTORIZED void split_row_reversed(                                                 \
      const T* __restrict row, int64_t width, T* __restrict first, T* __restrict second, \
      T* __restrict third) {                                                             \
    for (int64_t x = 0; x < width; ++x) {                                                \
      first[width - 1 - x] = row[3 * x];                                                 \
      second[width - 1 - x] = row[3 * x + 1];                                            \
      third[width - 1 - x] = row[3 * x + 2];                                             \
    }                                                                                    \
  }
NV_SPLIT_ROW(uint8_t)
NV_SPLIT_ROW(uint32_t)
#undef NV_SPLIT_ROW

template <typename T>
void split_colors(const void* data, const ImageView& view, void* out) {
  const int64_t area = view.height * view.width;
  for (int64_t y = 0; y < view.height; ++y) {
    const T* row = static_cast<const T*>(data) + view.row_start(y);
    T* to = static_cast<T*>(out) + y * view.width;
    if (view.columns_reversed) {
      split_row_reversed(row, view.width, to, to + area, to + 2 * area);
    } else {
      split_row(row, view.width, to, to + area, to + 2 * area);
    }
  }
}

template <typename T>
void split(const void* data, const ImageView& view, void* out) {
  const T* pixels = static_cast<const T*>(data);
  T* planes = static_cast<T*>(out);
  for (int64_t c = 0; c < view.channels; ++c) {
    for (int64_t y = 0; y < view.height; ++y) {
      const T* row = pixels + view.row_start(y) + c * view.channel;
      T* to = planes + (c * view.height + y) * view.width;
      for (int64_t x = 0; x < view.width; ++x) {
        to[x] = row[(view.columns_reversed ? view.width - 1 - x : x) * view.column];
      }
    }
  }
}

Tensor image_planes(const Tensor& image, bool rows_reversed, bool columns_reversed) {
  const ImageView view(image, rows_reversed, columns_reversed);
  Tensor out = torch::stable::new_empty(image, {view.channels, view.height, view.width});
  const void* from = image.const_data_ptr();
  void* to = out.mutable_data_ptr();
  const bool packed = view.is_packed_color();
  switch (image.element_size()) {
    case 1:
      (packed ? split_colors<uint8_t> : split<uint8_t>)(from, view, to);
      break;
    case 2:
      split<uint16_t>(from, view, to);
      break;
    case 4:
      (packed ? split_colors<uint32_t> : split<uint32_t>)(from, view, to);
      break;
    case 8:
      split<uint64_t>(from, view, to);
      break;
    default:
      STD_TORCH_CHECK(false, "image_planes: values of ", image.element_size(), " bytes");
  }
  return out;
}

}  // namespace
}  // namespace negvision

STABLE_TORCH_LIBRARY_IMPL(negvision, CPU, m) {
  m.impl("image_planes", TORCH_BOX(&negvision::image_planes));
}
