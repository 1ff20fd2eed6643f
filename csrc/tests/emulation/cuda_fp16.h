// float16 on the CPU, by its definition: 10 bits of mantissa, least normal number 2^-14.
#pragma once
#include <cstdint>
#include <cstring>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half number) {
  const uint32_t sign = uint32_t{number.bits & 0x8000u} << 16, rest = number.bits & 0x7fff;
  const auto as_float = [](uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  };
  if (rest >= 0x7c00) return as_float(sign | 0x7f800000 | (rest << 13));
  return as_float(sign | (rest << 13)) * 0x1p112f;  // so that a subnormal number becomes normal by itself
}

inline __half __float2half_rn(float value) {
  const auto as_bits = [](float number) {
    uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    return bits;
  };
  const uint32_t bits = as_bits(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  const float magnitude = value < 0 ? -value : value;
  if (value != value) return {0x7fff};
  uint32_t half = 0x7c00;
  if (magnitude < 0x1p-14f) {
    half =
        as_bits(magnitude + 0.5f) - as_bits(0.5f);  // a float from 0.5 on has steps of 2^-24, as has a subnormal half
  } else if (magnitude < 65520) {
    half = ((rest + 0xfff + ((rest >> 13) & 1)) >> 13) - (112 << 10);
  }
  return {static_cast<uint16_t>(sign | half)};
}
