// Runs all tests, or those whose names contain the first argument.
#include <chrono>
#include <cstring>

#include "check.h"

int failures = 0;

std::vector<Test>& all_tests() {
  static std::vector<Test> tests;
  return tests;
}

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  int run = 0;
  for (const Test& test : all_tests()) {
    if (count > 1 && std::strstr(test.name, arguments[1]) == nullptr) continue;
    const int before = failures;
    const auto start = std::chrono::steady_clock::now();
    test.run();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("%s  %s (%.2f s)\n", failures == before ? "ok    " : "FAILED", test.name, seconds.count());
    ++run;
  }
  std::printf("%d tests, %d failures\n", run, failures);
  return run == 0 || failures > 0;
}
