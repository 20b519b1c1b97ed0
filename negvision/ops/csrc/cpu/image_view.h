// An image in memory, (H, W, C), like a NumPy view: rows and columns may be reversed.
#pragma once

#include <cstdint>

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

namespace negvision {

struct ImageView {
  int64_t height, width, channels;
  int64_t row, column, channel;  // strides, in elements
  bool rows_reversed, columns_reversed;

  ImageView(const torch::stable::Tensor& image, bool rows, bool columns)
      : rows_reversed(rows), columns_reversed(columns) {
    STD_TORCH_CHECK(
        image.dim() == 3, "an image must be of shape (H, W, C), got ", image.dim(), " dimensions");
    height = image.size(0), width = image.size(1), channels = image.size(2);
    row = image.stride(0), column = image.stride(1), channel = image.stride(2);
  }

  // Whether the values of a row are adjacent, three per pixel.
  bool is_packed_color() const { return channels == 3 && column == 3 && channel == 1; }

  // The offset of row `y` of the image.
  int64_t row_start(int64_t y) const { return (rows_reversed ? height - 1 - y : y) * row; }
};

}  // namespace negvision
