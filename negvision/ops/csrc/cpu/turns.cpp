#include "turns.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include <torch/csrc/stable/ops.h>

namespace negvision {
namespace {

constexpr int64_t kPiecesPerThread = 8;
// Tens of microseconds, until the next loop of an operator or the end of a piece; then threads sleep.
constexpr int kSpins = 2000;

template <typename F>
void spin_until(const F& done) {
  for (int i = 0; i < kSpins && !done(); ++i) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
}

struct Job {
  Piece call;
  const void* process;
  int64_t end, size;
  std::atomic<int64_t> next;
  std::exception_ptr error = nullptr;
  int64_t wanted = 0;  // more threads
  std::atomic<int64_t> inside{0};

  void take() {
    for (int64_t first; (first = next.fetch_add(size)) < end;) {
      call(process, first, std::min(first + size, end));
    }
  }
};

// Threads that sleep until there is a job. The caller takes pieces too, and waits only for those in work:
// not for threads that have not come to run.
class Pool {
 public:
  void run(Job& job, int64_t helpers) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (job_) {  // of another caller
      lock.unlock();
      return job.take();
    }
    for (; threads_ < helpers; ++threads_) std::thread([this] { work(); }).detach();
    job_ = &job;
    job.wanted = helpers;
    ++jobs_;
    lock.unlock();
    for (int64_t i = 0; i < helpers; ++i) wake_.notify_one();
    take(job);
    lock.lock();
    job.wanted = 0;
    lock.unlock();
    spin_until([&] { return job.inside == 0; });
    lock.lock();
    done_.wait(lock, [&] { return job.inside == 0; });
    job_ = nullptr;
    lock.unlock();
    if (job.error) std::rethrow_exception(job.error);
  }

 private:
  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      wake_.wait(lock, [&] { return job_ && job_->wanted > 0; });
      Job& job = *job_;
      --job.wanted, ++job.inside;
      lock.unlock();
      const int64_t seen = jobs_;
      take(job);
      lock.lock();
      if (--job.inside == 0) done_.notify_one();
      lock.unlock();
      spin_until([&] { return jobs_ != seen; });
      lock.lock();
    }
  }

  void take(Job& job) {
    try {
      job.take();
    } catch (...) {
      job.next = job.end;
      std::lock_guard<std::mutex> lock(mutex_);
      job.error = std::current_exception();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  std::atomic<int64_t> jobs_{0};
  int64_t threads_ = 0;
};

// The pool of this process: a fork has none of the threads. Never freed, as threads use it until the end.
Pool& pool() {
  static std::mutex mutex;
  static Pool* own = nullptr;
  static pid_t process = 0;
  std::lock_guard<std::mutex> lock(mutex);
  if (process != getpid()) own = new Pool, process = getpid();
  return *own;
}

}  // namespace

void in_turns(int64_t begin, int64_t end, int64_t grain, Piece call, const void* process) {
  const int64_t count = end - begin;
  if (count <= 0) return;
  const int64_t worth = (count + grain - 1) / grain;
  const int64_t threads =
      worth < 2 ? 1 : std::min<int64_t>(worth, torch::stable::get_num_threads());
  if (threads < 2) return call(process, begin, end);
  Job job{call, process, end, std::max<int64_t>(1, count / (threads * kPiecesPerThread)), {begin}};
  pool().run(job, threads - 1);
}

}  // namespace negvision
