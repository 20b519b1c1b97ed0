// What the assignments on CUDA share: box counts as kernel arguments, so that nothing is copied from
// the host, and the shape of launches.
#pragma once

#include "assign_args.h"

namespace negvision {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int64_t kSharedBytes = 48 * 1024;
constexpr int kImagesAtOnce = 200;  // two arrays of these fit the 4 KiB of kernel arguments

// The index of the first box of each image of one launch.
struct ImageBegins {
  int count;
  int64_t begin[kImagesAtOnce + 1];
};

inline ImageBegins begins_of(const std::vector<int64_t>& all, int64_t first_image, int64_t count) {
  ImageBegins begins{int(count), {}};
  for (int64_t i = 0; i <= count; ++i) begins.begin[i] = all[first_image + i];
  return begins;
}

template <typename T>
const T* data_of(const OptionalTensor& tensor) {
  return tensor ? static_cast<const T*>(tensor->const_data_ptr()) : nullptr;
}
template <typename T>
T* data_of(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Device memory for `count` values of T, from torch's allocator.
template <typename T>
Tensor scratch(const Tensor& like, int64_t count) {
  return torch::stable::new_empty(like, {count * int64_t(sizeof(T))}, ScalarType::Byte);
}

}  // namespace negvision
