// The whole test framework: TEST(name) { ... CHECK(condition, "format", ...); }, run by main.cpp.
#pragma once
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

struct Test {
  const char* name;
  void (*run)();
};

std::vector<Test>& all_tests();
extern int failures;  // of CHECK, so far

#define TEST(name)                                                               \
  static void name();                                                            \
  static const bool name##_added = (all_tests().push_back({#name, name}), true); \
  static void name()

// A failure is printed with what follows the condition, and the test goes on; only the first hundred are printed.
#define CHECK(condition, ...)                                             \
  do {                                                                    \
    if (!(condition) && ++failures <= 100) {                              \
      std::printf("%s:%d: not so: %s: ", __FILE__, __LINE__, #condition); \
      std::printf(__VA_ARGS__);                                           \
      std::printf("\n");                                                  \
    }                                                                     \
  } while (false)

// Uniform in [low, high), the same numbers on every platform.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  double uniform(double low = -1, double high = 1) {
    return low + (high - low) * static_cast<double>(engine_() >> 11) * 0x1p-53;
  }
  uint64_t bits() { return engine_(); }
  int below(int limit) { return static_cast<int>(engine_() % static_cast<uint64_t>(limit)); }

 private:
  std::mt19937_64 engine_;
};
