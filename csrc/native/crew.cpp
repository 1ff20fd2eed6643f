#include "crew.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace cube {
namespace {

using Clock = std::chrono::steady_clock;

// How long a thread that waits for something soon to come spins before it sleeps.
constexpr auto spin = std::chrono::microseconds(50);

template <class Ready>
bool spin_until(const Ready& ready, Clock::duration limit) {
  const auto end = Clock::now() + limit;
  while (!ready()) {
    if (Clock::now() > end) return false;
    sched_yield();
  }
  return true;
}

class Pool {
 public:
  bool try_reserve() { return !reserved_.exchange(true, std::memory_order_acquire); }

  // Wakes threads and returns how many came, the caller included.
  int gather(int wanted, Clock::duration patience) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(workers_.size()) < wanted - 1) {
        workers_.emplace_back([this, seen = round_] { serve(seen); });
      }
      wanted_ = wanted;
      present_ = 1;
      gathering_ = true;
      ++round_;
    }
    start_.notify_all();
    spin_until([&] { return present_.load(std::memory_order_acquire) == wanted; }, patience);
    std::lock_guard<std::mutex> lock(mutex_);
    gathering_ = false;
    return present_;
  }

  void run(void (*work)(void*, int), void* context) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = work;
      context_ = context;
      busy_ = present_ - 1;
      ++job_;
    }
    job_ready_.notify_all();
    work(context, 0);
    if (spin_until([&] { return busy_.load(std::memory_order_acquire) == 0; }, spin)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

  void release() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      present_ = 0;
      ++job_;
    }
    job_ready_.notify_all();
    reserved_.store(false, std::memory_order_release);
  }

 private:
  void serve(unsigned long seen) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      start_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      if (!gathering_ || present_ >= wanted_) continue;  // too late
      const int member = present_;
      unsigned long known = job_;
      present_.store(member + 1, std::memory_order_release);
      while (next_job(lock, seen, known)) {
        const auto work = work_;
        void* const context = context_;
        lock.unlock();
        work(context, member);
        lock.lock();
        if (--busy_ == 0) done_.notify_one();
      }
    }
  }

  // Waits for a job after `known`, which becomes its number; false if the call is over.
  bool next_job(std::unique_lock<std::mutex>& lock, unsigned long round, unsigned long& known) {
    lock.unlock();
    spin_until([&] { return job_.load(std::memory_order_acquire) != known; }, spin);
    lock.lock();
    job_ready_.wait(lock, [&] { return job_ != known; });
    known = job_;
    return present_ > 0 && round_ == round;
  }

  std::atomic<bool> reserved_{false};
  std::mutex mutex_;
  std::condition_variable start_, job_ready_, done_;
  std::vector<std::thread> workers_;
  // Written under the mutex; those that are spun on are read without it.
  unsigned long round_ = 0;  // calls so far
  bool gathering_ = false;
  int wanted_ = 0;
  std::atomic<int> present_{0};
  std::atomic<unsigned long> job_{0};
  std::atomic<int> busy_{0};
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

// Of the process's OpenMP runtime, or null. A forked child must not touch the threads of a team that is not there.
std::atomic<OpenMPParallel> openmp{nullptr};

}  // namespace

void use_openmp(OpenMPParallel parallel) {
  static const bool once = [] {
    pthread_atfork(nullptr, nullptr, [] { openmp = nullptr; });
    return true;
  }();
  (void)once;
  openmp = parallel;
}

Crew::Crew(int wanted, int64_t patience) : size_(1) {
  if (wanted <= 1) return;
  team_ = openmp;
  if (team_ != nullptr) {
    std::atomic<int> present{0};
    team_([](void* count) { ++*static_cast<std::atomic<int>*>(count); }, &present, static_cast<unsigned>(wanted), 0);
    size_ = present;
  } else if (shared_pool().try_reserve()) {
    reserved_ = true;
    size_ = shared_pool().gather(wanted, std::chrono::microseconds(patience));
  }
}

Crew::~Crew() {
  if (reserved_) shared_pool().release();
}

int Crew::size() const { return size_; }

void Crew::run(void (*work)(void*, int), void* context) {
  if (size_ == 1) {
    work(context, 0);
  } else if (team_ != nullptr) {
    struct Task {
      void (*work)(void*, int);
      void* context;
      std::atomic<int> next;
    } task{work, context, {0}};
    const auto member = [](void* opaque) {
      Task& t = *static_cast<Task*>(opaque);
      t.work(t.context, t.next++);
    };
    team_(member, &task, static_cast<unsigned>(size_), 0);
  } else {
    shared_pool().run(work, context);
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
