// A stand-in for the CUDA runtime, with which the kernels run on the host: the threads of a block
// are fibers, which meet at barriers and exchange values as the lanes of a warp do; the blocks of a
// grid run one after another. Slow, deterministic, and enough to test what a kernel computes.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define threadIdx (stand_in::ThreadIndex{stand_in::current})
#define blockIdx stand_in::block_index
#define blockDim stand_in::block_size

struct dim3 {
  unsigned x, y;
  dim3(int64_t x_ = 1, int64_t y_ = 1) : x(unsigned(x_)), y(unsigned(y_)) {}
};
using cudaStream_t = void*;

namespace stand_in {

constexpr unsigned kWarp = 32, kMostThreads = 1024, kStack = 64 * 1024;

struct ThreadIndex {
  unsigned x;
};
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool done = false;
};
// Where fibers wait for one another. Two generations of values, since one fiber may reach the next
// meeting while another has yet to read what was brought to this one.
struct Meeting {
  unsigned arrived = 0;
  uint64_t generation = 0;
  uint64_t values[2][kWarp];
};

inline dim3 block_index, block_size;
inline unsigned current;
inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline std::function<void()> kernel;
inline Meeting warps[kMostThreads / kWarp], block;
inline char shared_memory[1 << 16];

inline void meet(Meeting& meeting, unsigned first, unsigned count) {
  const uint64_t generation = meeting.generation;
  ++meeting.arrived;
  while (meeting.generation == generation) {
    unsigned alive = 0;
    for (unsigned i = first; i < first + count && i < fibers.size(); ++i) alive += !fibers[i].done;
    if (meeting.arrived >= alive) {
      meeting.arrived = 0;
      ++meeting.generation;
    } else {
      swapcontext(&fibers[current].context, &scheduler);
    }
  }
}
inline void meet_warp() { meet(warps[current / kWarp], current / kWarp * kWarp, kWarp); }

template <typename T>
T exchange(T value, unsigned from) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  Meeting& meeting = warps[current / kWarp];
  uint64_t* values = meeting.values[meeting.generation % 2];
  std::memcpy(values + current % kWarp, &value, sizeof(T));
  meet_warp();
  std::memcpy(&value, values + from, sizeof(T));
  return value;
}

inline void run_fiber() {
  kernel();
  fibers[current].done = true;
  swapcontext(&fibers[current].context, &scheduler);
}

inline void run_block(unsigned threads) {
  fibers.clear();
  fibers.resize(threads);
  for (Meeting& warp : warps) warp.arrived = 0;
  block.arrived = 0;
  for (Fiber& fiber : fibers) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
  }
  for (bool running = true; running;) {
    running = false;
    for (current = 0; current < threads; ++current) {
      if (fibers[current].done) continue;
      running = true;
      swapcontext(&scheduler, &fibers[current].context);
    }
  }
}

template <typename F>
void launch(dim3 grid, dim3 threads, const F& call) {
  kernel = call;
  block_size = threads;
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      block_index = dim3(x, y);
      run_block(threads.x);
    }
  }
}

}  // namespace stand_in

template <typename T>
T __shfl_xor_sync(unsigned, T value, int step) {
  return stand_in::exchange(value, stand_in::current % stand_in::kWarp ^ unsigned(step));
}
template <typename T>
T __shfl_sync(unsigned, T value, int from) {
  return stand_in::exchange(value, unsigned(from));
}
inline void __syncwarp() { stand_in::meet_warp(); }
inline void __syncthreads() { stand_in::meet(stand_in::block, 0, stand_in::kMostThreads); }
inline unsigned long long atomicMax(unsigned long long* place, unsigned long long value) {
  const unsigned long long before = *place;
  if (before < value) *place = value;
  return before;
}
template <typename T>
void atomicAdd(T* place, T value) {
  *place += value;
}
inline int cudaMemsetAsync(void* place, int value, size_t bytes, cudaStream_t) {
  std::memset(place, value, bytes);
  return 0;
}
inline int cudaGetLastError() { return 0; }
