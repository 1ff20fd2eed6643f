// Threads of the native target: the host's, or a pool that sleeps when idle, and a barrier for one sample's threads.
// Compiled once, for the oldest CPU: no inline code.
#pragma once
#include <cstdint>

namespace cube {

// GOMP_parallel of an OpenMP runtime: runs function(data) on so many threads.
using OpenMPParallel = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

// From now on calls run on the threads of this runtime; null: on a pool of our own. A host that computes with OpenMP
// leaves its threads spinning for milliseconds, and others would have to share their cores.
void use_openmp(OpenMPParallel parallel);

// Threads reserved for one call. Results never depend on how many were granted: a pool of ours that is in use by
// another call grants one, the caller's own, and its threads that do not wake up within `patience` microseconds are
// left out: they have no free core and would keep the others waiting.
class Crew {
 public:
  Crew(int wanted, int64_t patience);
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  int size() const;
  // Calls work(context, member) once for every member in [0, size()), each in a thread of its own.
  void run(void (*work)(void* context, int member), void* context);

 private:
  bool reserved_ = false;
  OpenMPParallel team_ = nullptr;
  int size_;
};

// Members meet here; reusable. Spins briefly (the others are a cell block away), then yields its core.
class Barrier {
 public:
  explicit Barrier(int members);
  ~Barrier();
  Barrier(const Barrier&) = delete;
  Barrier& operator=(const Barrier&) = delete;
  void wait();

 private:
  struct State;
  State* state_;
};

// Hands out 0, 1, 2, ... to whichever thread asks.
class Counter {
 public:
  Counter();
  ~Counter();
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;
  long next();

 private:
  struct State;
  State* state_;
};

}  // namespace cube
