// Numbers by themselves: random words, storage formats, transcendental functions.
#include <cfloat>
#include <cmath>
#include <limits>

#include "../native/masks.h"
#include "../native/storage.h"
#include "check.h"

namespace cube {
namespace {

// The known answers that Random123 publishes (Salmon et al., SC 2011).
TEST(philox_gives_the_known_answers) {
  struct Answer {
    Words counter;
    uint64_t key;
    Words words;
  };
  const Answer answers[] = {
      {{{0, 0, 0, 0}}, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
      {{{~0u, ~0u, ~0u, ~0u}}, ~uint64_t{0}, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
      {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
       0x299f31d0a4093822,
       {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
  };
  for (const Answer& answer : answers) {
    const Words words = philox(answer.counter, answer.key);
    for (int i = 0; i < 4; ++i) {
      CHECK(words.word[i] == answer.words.word[i], "word %d is %08x", i, words.word[i]);
    }
  }
}

struct Format {
  Storage storage;
  int digits;        // of the significand, the leading one included
  int min_exponent;  // of normal numbers
  double largest;
};
const Format formats[] = {{Storage::bfloat16, 8, -126, 0x1.fep127}, {Storage::float16, 11, -14, 65504}};

// The nearest number of the format, ties to even, by exact double arithmetic: in units of the last place, which is a
// power of two, the value is scaled exactly.
float nearest(const Format& format, float value) {
  if (value == 0 || !std::isfinite(value)) return value;
  const double v = value;
  const double unit = std::ldexp(1.0, std::max(std::ilogb(v), format.min_exponent) - (format.digits - 1));
  const double result = std::nearbyint(v / unit) * unit;
  return static_cast<float>(std::fabs(result) > format.largest ? std::copysign(INFINITY, v) : result);
}

// The value of 16 bits by the format's definition.
double meaning(const Format& format, uint16_t half) {
  const int stored = format.digits - 1;
  const int exponent = (half & 0x7fff) >> stored, mantissa = half & ((1 << stored) - 1);
  const int top = (1 << (15 - stored)) - 1;
  const double sign = half & 0x8000 ? -1 : 1;
  if (exponent == top) return mantissa ? NAN : sign * INFINITY;
  const int significand = exponent == 0 ? mantissa : mantissa + (1 << stored);
  return sign * std::ldexp(significand, std::max(exponent, 1) - 1 + format.min_exponent - stored);
}

// Not inlined: the compiler would see sizes but not that the format is a narrow one, and warn of wide copies.
[[gnu::noinline]] void decode_all(Storage storage, const std::vector<uint16_t>& halves, std::vector<float>& values) {
  decode<float>(storage, halves.data(), static_cast<int64_t>(halves.size()), values.data());
}
[[gnu::noinline]] void encode_all(Storage storage, const std::vector<float>& values, std::vector<uint16_t>& halves) {
  encode<float>(storage, values.data(), static_cast<int64_t>(values.size()), halves.data());
}

TEST(every_half_value_survives_decoding_and_encoding) {
  std::vector<uint16_t> halves(1 << 16), again(1 << 16);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> values(halves.size());
  for (const Format& format : formats) {
    decode_all(format.storage, halves, values);
    encode_all(format.storage, values, again);
    for (size_t i = 0; i < halves.size(); ++i) {
      const double right = meaning(format, halves[i]);
      if (std::isnan(right)) {
        CHECK(std::isnan(values[i]) && std::isnan(meaning(format, again[i])), "%04x is a NaN", halves[i]);
      } else {
        CHECK(values[i] == right && std::signbit(values[i]) == std::signbit(right), "%04x decodes to %a", halves[i],
              values[i]);
        CHECK(again[i] == halves[i], "%04x became %04x", halves[i], again[i]);
      }
    }
  }
}

TEST(rounding_is_to_nearest_ties_to_even) {
  Random random(1);
  for (const Format& format : formats) {
    std::vector<float> values = {0.0f,     -0.0f,    INFINITY,  -INFINITY, NAN,       -NAN,       FLT_MAX,  -FLT_MAX,
                                 FLT_MIN,  65504,    65519.99f, 65520,     -65520,    65536,      0x1p-24f, 0x1p-25f,
                                 0x1p-26f, 0x1p-14f, 0x1p-149f, 0x1p-133f, 0x1p-134f, 0x1.ffp127f};
    // Every number of the format, the middle to the next one, and the floats beside the two.
    for (int i = 0; i < 0x8000; ++i) {
      const double here = meaning(format, static_cast<uint16_t>(i)),
                   next = meaning(format, static_cast<uint16_t>(i + 1));
      if (!std::isfinite(here)) continue;
      const float middle = static_cast<float>(std::isfinite(next) ? (here + next) / 2 : here);
      for (const float v : {static_cast<float>(here), middle}) {
        for (const float near : {v, std::nextafter(v, 0.0f), std::nextafter(v, INFINITY)}) {
          values.push_back(near);
          values.push_back(-near);
        }
      }
    }
    for (int i = 0; i < 100000; ++i) values.push_back(from_bits(static_cast<uint32_t>(random.bits())));
    std::vector<uint16_t> halves(values.size());
    encode_all(format.storage, values, halves);
    for (size_t i = 0; i < values.size(); ++i) {
      const float right = nearest(format, values[i]);
      const float lane = rounded_number<float>(format.storage, values[i]);
      const double encoded = meaning(format, halves[i]);
      if (std::isnan(right)) {
        CHECK(std::isnan(lane) && std::isnan(encoded), "%a rounds to %a, is encoded as %a", values[i], lane, encoded);
      } else {
        CHECK(to_bits(lane) == to_bits(right), "%a rounds to %a, not %a", values[i], right, lane);
        CHECK(encoded == right && std::signbit(encoded) == std::signbit(right), "%a rounds to %a, is encoded as %a",
              values[i], right, encoded);
      }
    }
  }
}

// The distance of a value from the exact one in units of the exact one's last place.
template <class T>
double ulps(T value, long double exact) {
  int exponent = 0;
  std::frexp(exact, &exponent);
  const int digits = std::numeric_limits<T>::digits, least = std::numeric_limits<T>::min_exponent;
  return static_cast<double>(std::fabs(value - exact) / std::ldexp(1.0L, std::max(exponent, least) - digits));
}

template <class T, class Function>
std::vector<T> mapped(const std::vector<T>& values, const Function& function) {
  std::vector<T> results(values.size() + lanes<T>), padded = values;
  padded.resize(results.size());
  for (size_t i = 0; i < values.size(); i += lanes<T>) store(&results[i], function(load(&padded[i])));
  results.resize(values.size());
  return results;
}

// Both signs of sizes from `smallest` to `limit` in equal ratios, and in equal steps.
template <class T>
std::vector<T> dense(double smallest, double limit) {
  const int count = 100000;
  std::vector<T> values;
  for (int i = 0; i <= count; ++i) {
    for (const double v : {smallest * std::pow(limit / smallest, static_cast<double>(i) / count), limit * i / count}) {
      values.push_back(static_cast<T>(v));
      values.push_back(static_cast<T>(-v));
    }
  }
  return values;
}

long double exact_logistic(long double v) { return 1 / (1 + std::exp(-v)); }

// `tanh_limit` and `logistic_limit`: units in the last place. The logistic stays normal down to `lowest`.
template <class T>
void check_accuracy(double tanh_limit, double logistic_limit, double lowest) {
  const T infinity = std::numeric_limits<T>::infinity();
  std::vector<T> values = dense<T>(std::numeric_limits<T>::min(), 30);
  std::vector<T> results = mapped(values, [](auto v) { return hyperbolic_tangent(v); });
  double worst = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double error = ulps(results[i], std::tanh(static_cast<long double>(values[i])));
    worst = std::max(worst, error);
    CHECK(error <= tanh_limit, "tanh(%a) is %a, off by %.2f ulp", double(values[i]), double(results[i]), error);
    CHECK(std::fabs(results[i]) <= 1, "tanh(%a)", double(values[i]));
  }
  std::printf("        tanh, %d bits: %.2f ulp\n", int{sizeof(T)} * 8, worst);

  values = dense<T>(std::numeric_limits<T>::min(), lowest);
  results = mapped(values, [](auto v) { return logistic(v); });
  worst = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double error = ulps(results[i], exact_logistic(values[i]));
    worst = std::max(worst, error);
    CHECK(error <= logistic_limit, "logistic(%a) is %a, off by %.2f ulp", double(values[i]), double(results[i]), error);
  }
  std::printf("        logistic, %d bits: %.2f ulp\n", int{sizeof(T)} * 8, worst);

  const T nan = std::numeric_limits<T>::quiet_NaN(), huge = std::numeric_limits<T>::max();
  values = {0, -T{0}, infinity, -infinity, nan, huge, -huge, std::numeric_limits<T>::denorm_min()};
  results = mapped(values, [](auto v) { return hyperbolic_tangent(v); });
  CHECK(results[0] == 0 && !std::signbit(results[0]) && results[1] == 0, "tanh of zeros");
  CHECK(results[2] == 1 && results[3] == -1 && results[5] == 1 && results[6] == -1, "tanh at the ends");
  CHECK(std::isnan(results[4]), "tanh of NaN");
  CHECK(results[7] >= 0 && results[7] <= 2 * values[7], "tanh of the least number");
  results = mapped(values, [](auto v) { return logistic(v); });
  CHECK(results[0] == T{0.5} && results[1] == T{0.5}, "logistic of zeros");
  CHECK(results[2] == 1 && results[5] == 1, "logistic at the upper end");
  CHECK(results[3] >= 0 && results[3] <= 4 * std::numeric_limits<T>::min() && results[6] == results[3],
        "logistic at the lower end is %a", double(results[3]));
  CHECK(std::isnan(results[4]), "logistic of NaN");
}

TEST(transcendental_functions_are_accurate) {
  check_accuracy<float>(4, 4, 87);
  check_accuracy<double>(4, 4, 708);
}

}  // namespace
}  // namespace cube
