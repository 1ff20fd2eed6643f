#include "crew.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace cube {
namespace {

class Pool {
 public:
  bool try_reserve() { return !reserved_.exchange(true, std::memory_order_acquire); }
  void release() { reserved_.store(false, std::memory_order_release); }

  void run(int members, void (*work)(void*, int), void* context) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(workers_.size()) < members - 1) {
        const int member = static_cast<int>(workers_.size()) + 1;
        workers_.emplace_back([this, member, seen = round_] { serve(member, seen); });
      }
      work_ = work;
      context_ = context;
      members_ = members;
      busy_ = members - 1;
      ++round_;
    }
    start_.notify_all();
    work(context, 0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void serve(int member, unsigned long seen) {
    for (;;) {
      void (*work)(void*, int);
      void* context;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        start_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
        if (member >= members_) continue;
        work = work_;
        context = context_;
      }
      work(context, member);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::atomic<bool> reserved_{false};
  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::vector<std::thread> workers_;
  unsigned long round_ = 0;
  int members_ = 0;
  int busy_ = 0;
  void (*work_)(void*, int) = nullptr;
  void* context_ = nullptr;
};

// Never destroyed: its threads outlive static destruction. A forked child starts with a pool of its
// own, since threads do not survive a fork.
Pool* pool = nullptr;

Pool& shared_pool() {
  static const bool once = [] {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
    return true;
  }();
  (void)once;
  return *pool;
}

}  // namespace

Crew::Crew(int wanted) : size_(wanted > 1 && shared_pool().try_reserve() ? wanted : 1) {}

Crew::~Crew() {
  if (size_ > 1) shared_pool().release();
}

int Crew::size() const { return size_; }

void Crew::run(void (*work)(void*, int), void* context) {
  if (size_ > 1) {
    shared_pool().run(size_, work, context);
  } else {
    work(context, 0);
  }
}

struct Barrier::State {
  explicit State(int count) : members(count), missing(count) {}
  const int members;
  std::atomic<int> missing;
  std::atomic<unsigned> round{0};
};

Barrier::Barrier(int members) : state_(new State(members)) {}
Barrier::~Barrier() { delete state_; }

void Barrier::wait() {
  State& s = *state_;
  if (s.members == 1) return;
  const unsigned round = s.round.load(std::memory_order_relaxed);
  if (s.missing.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    s.missing.store(s.members, std::memory_order_relaxed);
    s.round.fetch_add(1, std::memory_order_release);
    return;
  }
  for (int spins = 0; s.round.load(std::memory_order_acquire) == round; ++spins) {
    if (spins > 2000) sched_yield();
  }
}

struct Counter::State {
  std::atomic<long> value{0};
};

Counter::Counter() : state_(new State) {}
Counter::~Counter() { delete state_; }
long Counter::next() { return state_->value.fetch_add(1, std::memory_order_relaxed); }

}  // namespace cube
