// Threads of the native target: a pool that sleeps when idle, and a barrier for one sample's threads.
// Compiled once, for the oldest CPU: no inline code.
#pragma once

namespace cube {

// Threads reserved for one call. Results never depend on how many were granted: a pool that is in use by another call
// grants one, the caller's own, and threads that do not wake up at once, having no free core, are left out.
class Crew {
 public:
  explicit Crew(int wanted);
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  int size() const;
  // Calls work(context, member) once for every member in [0, size()), the caller being member 0.
  void run(void (*work)(void* context, int member), void* context);

 private:
  bool reserved_;
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
