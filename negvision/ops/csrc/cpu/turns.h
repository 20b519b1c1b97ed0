// Loops over several threads that take pieces in turns: a thread whose core is busy with another
// process takes fewer, and the others do not wait for its share.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include <torch/csrc/stable/ops.h>

namespace negvision {

using Piece = void (*)(const void* process, int64_t first, int64_t last);
void in_turns(int64_t begin, int64_t end, int64_t grain, Piece call, const void* process);

// Calls process(first, last) for pieces of the range, in this thread and in others. `grain` is the work
// for which another thread is worth waking. Results must not depend on the pieces.
template <typename F>
void in_turns(int64_t begin, int64_t end, int64_t grain, const F& process) {
  in_turns(
      begin, end, grain,
      [](const void* f, int64_t first, int64_t last) { (*static_cast<const F*>(f))(first, last); },
      &process);
}

// Calls work(next) in several threads, where next() is the next of `count` indices, or at least `count`.
// In a parallel region of torch, so that products of matrices in it take one thread each.
template <typename F>
void products_in_turns(int64_t count, const F& work) {
  std::atomic<int64_t> index{0};
  const int64_t threads = std::min<int64_t>(count, torch::stable::get_num_threads());
  torch::stable::parallel_for(
      0, threads, 1, [&](int64_t, int64_t) { work([&] { return index.fetch_add(1); }); });
}

}  // namespace negvision
