#include <cuda_runtime.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <map>
#include <stdexcept>
#include <vector>

// This file is compiled without sanitizers, which it tells what happens; CUBE_SANITIZER says which is there.
#if CUBE_SANITIZER == 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif CUBE_SANITIZER == 2
#include <sanitizer/tsan_interface.h>
// ThreadSanitizer's interface for Java heaps can forget what happened to a piece of memory.
extern "C" void __tsan_java_init(unsigned long begin, unsigned long size);
extern "C" void __tsan_java_alloc(unsigned long begin, unsigned long size);
#endif

namespace emulation {
namespace {

constexpr unsigned most_blocks = 8, most_threads = 2048, most_block_threads = 1024;  // of a cluster
constexpr size_t largest_shared = 232448, red_zone = 4096, stack_bytes = size_t{128} << 10;
constexpr size_t warp_bytes = 2 * warp_threads * slot_bytes;
constexpr size_t slots_start = most_blocks * (largest_shared + red_zone);
constexpr size_t stacks_start = slots_start + most_threads / warp_threads * warp_bytes;

// The shared memory of the blocks that run, and behind it what their warps exchange and the stacks of their threads.
alignas(4096) unsigned char memory[stacks_start + most_threads * stack_bytes];

unsigned char* shared_of(unsigned block) { return memory + block * (largest_shared + red_zone); }
unsigned char* stack_of(unsigned thread) { return memory + stacks_start + thread * stack_bytes; }

// A number from the environment: what machine is emulated.
int setting(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

enum class State { ready, at_barrier, at_cluster, at_warp, done };
enum class Order { forward, reverse, random };

using Jump = void* [5];  // as __builtin_setjmp takes it

struct Fiber {
  ucontext_t context;  // where it begins
  Jump jump;           // where it goes on
  State state;
  bool begun;
  unsigned place, block, thread;                   // in the cluster, of the cluster's blocks, of the block's threads
  unsigned barriers, cluster_barriers, exchanges;  // so far
  void* stack_of_scheduler;                        // AddressSanitizer's
  void* identity;                                  // ThreadSanitizer's
};

// The launch that runs.
std::vector<Fiber> fibers;
Fiber* current;
Jump scheduler;
unsigned first_block, the_cluster, the_grid;  // the first of the blocks that run, how many they are, and all
const std::function<void()>* the_thread;
std::exception_ptr failure;

// NaN in every format. Not by memset, which ThreadSanitizer would see.
void fill_undefined() {
  for (unsigned block = 0; block < the_cluster; ++block) {
    volatile uint64_t* words = reinterpret_cast<uint64_t*>(shared_of(block));
    for (size_t i = 0; i < largest_shared / sizeof *words; ++i) words[i] = ~uint64_t{0};
  }
}

// Barriers are numbered: those of a block's warps, of the block, and of its cluster.
constexpr unsigned of_block = most_block_threads / warp_threads, of_cluster = of_block + 1;

// What each sanitizer has to know of fibers and barriers.
#if CUBE_SANITIZER == 1
const void* scheduler_stack;
size_t scheduler_stack_bytes;

void leave_scheduler(Fiber& fiber, void** fake) {
  __sanitizer_start_switch_fiber(fake, stack_of(fiber.place), stack_bytes);
}
void back_in_scheduler(void* fake) { __sanitizer_finish_switch_fiber(fake, nullptr, nullptr); }
void enter_fiber() { __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes); }
void leave_fiber(Fiber& fiber) {
  __sanitizer_start_switch_fiber(fiber.state == State::done ? nullptr : &fiber.stack_of_scheduler, scheduler_stack,
                                 scheduler_stack_bytes);
}
void back_in_fiber(Fiber& fiber) {
  __sanitizer_finish_switch_fiber(fiber.stack_of_scheduler, &scheduler_stack, &scheduler_stack_bytes);
}
void begin_launch(size_t) {}
void end_launch() {}
void begin_cluster(size_t shared_bytes) {
  __asan_unpoison_memory_region(memory, stacks_start + fibers.size() * stack_bytes);
  fill_undefined();
  for (unsigned block = 0; block < most_blocks; ++block) {
    const size_t bytes = block < the_cluster ? shared_bytes : 0;
    __asan_poison_memory_region(shared_of(block) + bytes, largest_shared + red_zone - bytes);
  }
}
void arrive(unsigned, unsigned) {}
void leave(unsigned, unsigned) {}
#elif CUBE_SANITIZER == 2
// Identities for CUDA threads: neighboring clusters take different ones, and nothing orders those. A launch comes after
// what its caller did, and before what its caller does.
constexpr unsigned identity_sets = 3;
constexpr unsigned barriers_a_block = 2 * (of_cluster + 1);
std::vector<void*> identities;
void* scheduler_identity;
char launch_begun, launch_ended, barriers[1024 * barriers_a_block];

// A barrier and the next one on the same threads are two: a thread may arrive at the next before another has left this.
char* barrier_of(unsigned which, unsigned round) {
  const unsigned block = first_block + (which == of_cluster ? 0 : current->block);
  return barriers + block % 1024 * barriers_a_block + 2 * which + round % 2;
}
void leave_scheduler(Fiber& fiber, void**) { __tsan_switch_to_fiber(fiber.identity, __tsan_switch_to_fiber_no_sync); }
void back_in_scheduler(void*) {}
void enter_fiber() { __tsan_acquire(&launch_begun); }
void leave_fiber(Fiber& fiber) {
  if (fiber.state == State::done) __tsan_release(&launch_ended);
  __tsan_switch_to_fiber(scheduler_identity, __tsan_switch_to_fiber_no_sync);
}
void back_in_fiber(Fiber&) {}
void begin_launch(size_t threads) {
  static const bool once = (__tsan_java_init(reinterpret_cast<unsigned long>(memory), sizeof memory), true);
  static_cast<void>(once);
  scheduler_identity = __tsan_get_current_fiber();
  while (identities.size() < threads * identity_sets) identities.push_back(__tsan_create_fiber(0));
  __tsan_release(&launch_begun);
}
void end_launch() { __tsan_acquire(&launch_ended); }
void begin_cluster(size_t) {
  fill_undefined();
  // A cluster knows nothing of what others did in this memory.
  __tsan_java_alloc(reinterpret_cast<unsigned long>(memory), stacks_start + fibers.size() * stack_bytes);
  for (Fiber& fiber : fibers) {
    fiber.identity = identities[fiber.place + fibers.size() * (first_block / the_cluster % identity_sets)];
  }
}
void arrive(unsigned which, unsigned round) { __tsan_release(barrier_of(which, round)); }
void leave(unsigned which, unsigned round) { __tsan_acquire(barrier_of(which, round)); }
#else
void leave_scheduler(Fiber&, void**) {}
void back_in_scheduler(void*) {}
void enter_fiber() {}
void leave_fiber(Fiber&) {}
void back_in_fiber(Fiber&) {}
void begin_launch(size_t) {}
void end_launch() {}
void begin_cluster(size_t) { fill_undefined(); }
void arrive(unsigned, unsigned) {}
void leave(unsigned, unsigned) {}
#endif

// Changing threads by these built-ins costs no system call, as swapcontext does.

[[noreturn, gnu::noinline]] void go_on(Jump& jump) { __builtin_longjmp(jump, 1); }

[[gnu::noinline]] void wait(State state) {
  Fiber& fiber = *current;
  fiber.state = state;
  leave_fiber(fiber);
  if (__builtin_setjmp(fiber.jump) == 0) go_on(scheduler);
  back_in_fiber(*current);
}

void thread_main() {
  enter_fiber();
  try {
    (*the_thread)();
  } catch (...) {
    failure = std::current_exception();
  }
  wait(State::done);
}

[[gnu::noinline]] void resume(Fiber& fiber) {
  static void* fake;
  current = &fiber;
  leave_scheduler(fiber, &fake);
  if (__builtin_setjmp(scheduler) == 0) {
    if (current->begun) go_on(current->jump);
    current->begun = true;
    setcontext(&current->context);
  }
  back_in_scheduler(fake);
}

// Fibers `first` .. `first + count` that are in a state.
size_t waiting(State state, size_t first, size_t count) {
  const auto begin = fibers.begin() + static_cast<long>(first);
  return static_cast<size_t>(std::count_if(begin, begin + static_cast<long>(std::min(count, fibers.size() - first)),
                                           [&](const Fiber& fiber) { return fiber.state == state; }));
}

// Lets go on whoever waits in a state, in groups of so many threads that have all arrived; false if there is none.
bool release(State state, size_t threads) {
  bool any = false;
  for (size_t first = 0; first < fibers.size(); first += threads) {
    const size_t count = std::min(threads, fibers.size() - first);
    if (waiting(state, first, count) != count) continue;
    for (size_t i = first; i < first + count; ++i) fibers[i].state = State::ready;
    any = true;
  }
  return any;
}

void run_cluster(size_t shared_bytes, Order order) {
  begin_cluster(shared_bytes);
  for (Fiber& fiber : fibers) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack_of(fiber.place);
    fiber.context.uc_stack.ss_size = stack_bytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, thread_main, 0);
    fiber.state = State::ready;
    fiber.begun = false;
    fiber.barriers = fiber.cluster_barriers = fiber.exchanges = 0;
  }
  const size_t threads = fibers.size();
  uint32_t random = 12345 + first_block;
  while (true) {
    random = random * 1664525 + 1013904223;
    const size_t shift = order == Order::random ? (random >> 8) % threads : 0;
    for (size_t i = 0; i < threads; ++i) {
      Fiber& fiber = fibers[order == Order::reverse ? threads - 1 - i : (i + shift) % threads];
      if (fiber.state == State::ready) resume(fiber);
      if (failure) return;
    }
    if (waiting(State::done, 0, threads) == threads) return;
    const bool warps = release(State::at_warp, warp_threads);
    const bool blocks = release(State::at_barrier, threads / the_cluster);
    const bool cluster = release(State::at_cluster, threads);
    if (!warps && !blocks && !cluster) {
      const auto number = [&](State state) { return std::to_string(waiting(state, 0, threads)); };
      throw std::runtime_error("emulated CUDA: a barrier that not all threads reach: " + number(State::at_barrier) +
                               " wait for their block, " + number(State::at_cluster) + " for their cluster, " +
                               number(State::at_warp) + " for their warp, " + number(State::done) + " have ended");
    }
  }
}

std::map<const void*, int>& allowed_shared_memory() {
  static std::map<const void*, int> bytes;
  return bytes;
}

int shared_limit() { return setting("CUBE_EMULATED_SHARED_BYTES", largest_shared); }

}  // namespace

unsigned thread_index() { return current->thread; }
unsigned block_index() { return first_block + current->block; }
unsigned grid_size() { return the_grid; }
unsigned lane() { return current->thread % warp_threads; }

void synchronize_block() {
  const unsigned round = current->barriers++;
  arrive(of_block, round);
  wait(State::at_barrier);
  leave(of_block, round);
}

void synchronize_cluster() {
  const unsigned round = current->cluster_barriers++;
  arrive(of_cluster, round);
  wait(State::at_cluster);
  leave(of_cluster, round);
}

unsigned char* shared_memory() { return shared_of(current->block); }
unsigned char* shared_memory(int rank) {
  if (rank < 0 || static_cast<unsigned>(rank) >= the_cluster) {
    throw std::runtime_error("emulated CUDA: no block " + std::to_string(rank) + " in a cluster of " +
                             std::to_string(the_cluster));
  }
  return shared_of(static_cast<unsigned>(rank));
}

const unsigned char* exchange(const void* mine, size_t bytes) {
  const unsigned warp = current->thread / warp_threads, round = current->exchanges++;
  unsigned char* slots =
      memory + slots_start + current->place / warp_threads * warp_bytes + round % 2 * (warp_bytes / 2);
  std::memcpy(slots + lane() * slot_bytes, mine, bytes);
  arrive(warp, round);
  wait(State::at_warp);
  leave(warp, round);
  return slots;
}

void run(dim3 grid, dim3 block, unsigned cluster, size_t shared_bytes, const std::function<void()>& thread) {
  fibers.resize(cluster * block.x);
  for (unsigned i = 0; i < fibers.size(); ++i) {
    fibers[i].place = i;
    fibers[i].block = i / block.x;
    fibers[i].thread = i % block.x;
  }
  the_grid = grid.x;
  the_cluster = cluster;
  the_thread = &thread;
  failure = nullptr;
  begin_launch(fibers.size());
  const auto order = static_cast<Order>(setting("CUBE_EMULATED_ORDER", 0));
  for (first_block = 0; first_block < grid.x; first_block += cluster) {
    run_cluster(shared_bytes, order);
    if (failure) std::rethrow_exception(failure);
  }
  end_launch();
}

int current_device = 0;
int device_count() { return setting("CUBE_EMULATED_DEVICES", 1); }

cudaError_t allow_shared_memory(const void* kernel, int bytes) {
  if (bytes > shared_limit()) return cudaErrorInvalidValue;
  allowed_shared_memory()[kernel] = bytes;
  return cudaSuccess;
}

unsigned cluster_of(const cudaLaunchConfig_t& config) {
  return config.numAttrs > 0 ? config.attrs->val.clusterDim.x : 1;
}

// Of a device that has no clusters, 1.
unsigned largest_cluster() {
  return static_cast<unsigned>(setting("CUBE_EMULATED_CAPABILITY", 90) >= 90 ? most_blocks : 1);
}

cudaError_t check_launch(const void* kernel, const cudaLaunchConfig_t& config) {
  constexpr int without_asking = 48 << 10;
  const int allowed = std::max(allowed_shared_memory()[kernel], without_asking);
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const unsigned cluster = cluster_of(config);
  const bool clusters =
      cluster > 0 && cluster <= largest_cluster() && grid.x % cluster == 0 && cluster * block.x <= most_threads;
  const bool fits = grid.x > 0 && grid.y == 1 && grid.z == 1 && block.x > 0 && block.x <= most_block_threads &&
                    block.y == 1 && block.z == 1 && config.dynamicSmemBytes <= static_cast<size_t>(allowed);
  const bool there = config.stream == nullptr || config.stream->device == current_device;
  return fits && clusters && there ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace emulation

cudaError_t cudaDriverGetVersion(int* version) {
  *version = emulation::setting("CUBE_EMULATED_DRIVER", CUDART_VERSION);
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = emulation::device_count();
  return emulation::setting("CUBE_EMULATED_DRIVER", CUDART_VERSION) < CUDART_VERSION ? cudaErrorInsufficientDriver
                                                                                     : cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = emulation::current_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= emulation::device_count()) return cudaErrorInvalidValue;
  emulation::current_device = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const int capability = emulation::setting("CUBE_EMULATED_CAPABILITY", 90);
  *value = attribute == cudaDevAttrComputeCapabilityMajor   ? capability / 10
           : attribute == cudaDevAttrComputeCapabilityMinor ? capability % 10
           : attribute == cudaDevAttrClusterLaunch          ? emulation::largest_cluster() > 1
                                                            : emulation::shared_limit();
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaSuccess             ? "cudaSuccess"
         : error == cudaErrorInvalidValue ? "cudaErrorInvalidValue"
                                          : "cudaErrorInsufficientDriver";
}
const char* cudaGetErrorString(cudaError_t) { return "as emulated"; }
