// The caller's numbers to and from the target's, a row at a time, and rounding in between.
#pragma once
#include <cstring>
#include <type_traits>

#include "../plan.h"
#include "vector.h"

namespace cube {
namespace {

inline const void* element(Storage storage, const void* base, int64_t index) {
  return static_cast<const char*>(base) + index * storage_bytes(storage);
}
inline void* element(Storage storage, void* base, int64_t index) {
  return static_cast<char*>(base) + index * storage_bytes(storage);
}

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint32_t to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// float16 by its definition: 10 bits of mantissa, least normal 2^-14.
inline float from_float16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, rest = half & 0x7fff;
  const float scaled_up = from_bits(sign | (rest << 13)) * 0x1p112f;  // a subnormal becomes normal by itself
  return rest < 0x7c00 ? scaled_up : from_bits(sign | 0x7f800000 | (rest << 13));
}
// Exact for values that float16 holds.
inline uint16_t to_float16(float value) {
  const uint32_t bits = to_bits(value), sign = (bits >> 16) & 0x8000, rest = bits & 0x7fffffff;
  if (rest >= 0x7f800000) return static_cast<uint16_t>(sign | 0x7c00 | (rest > 0x7f800000 ? 0x200 : 0));
  return static_cast<uint16_t>(sign | (to_bits(from_bits(rest) * 0x1p-112f) >> 13));
}

// `v` rounded to the nearest number that the storage holds, ties to even.
template <class V>
inline V rounded(Storage storage, V v) {
  if constexpr (std::is_same_v<V, Vector<float>>) {
    using Bits = VectorOf<float>::bits;
    const Bits bits = reinterpret_cast<Bits>(v), sign = bits & 0x80000000u;
    if (storage == Storage::bfloat16) {
      const Bits nearest = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
      const Bits nan = bits | 0x400000;  // which a payload in the lower bits alone would not stay
      return v == v ? reinterpret_cast<V>(nearest) : reinterpret_cast<V>(nan);
    }
    if (storage == Storage::float16) {
      const Bits rest = bits ^ sign;
      const V magnitude = reinterpret_cast<V>(rest);
      const Bits nearest = (rest + 0xfff + ((rest >> 13) & 1)) & 0xffffe000u;
      const V least = broadcast<V>(0x1p-14f), shifter = broadcast<V>(0.75f);  // a float of 0.75 has steps of 2^-24
      V result = magnitude < least ? (magnitude + shifter) - shifter : reinterpret_cast<V>(nearest);
      result = magnitude >= broadcast<V>(65520.0f) ? broadcast<V>(__builtin_inff()) : result;
      return v == v ? reinterpret_cast<V>(reinterpret_cast<Bits>(result) | sign) : v;
    }
  }
  return v;
}

template <class T>
inline T rounded_number(Storage storage, double value) {
  T numbers[lanes<T>];
  store(numbers, rounded(storage, broadcast<Vector<T>>(static_cast<T>(value))));
  return numbers[0];
}

// `count` numbers from the caller's memory.
template <class T>
inline void decode(Storage storage, const void* from, int64_t count, T* to) {
  if constexpr (std::is_same_v<T, float>) {
    const uint16_t* half = static_cast<const uint16_t*>(from);
    switch (storage) {
      case Storage::bfloat16:
        for (int64_t i = 0; i < count; ++i) to[i] = from_bits(static_cast<uint32_t>(half[i]) << 16);
        return;
      case Storage::float16:
        for (int64_t i = 0; i < count; ++i) to[i] = from_float16(half[i]);
        return;
      case Storage::float32:
      case Storage::float64: break;
    }
  }
  std::memcpy(to, from, count * sizeof(T));
}

// `count` numbers to the caller's memory, rounded.
template <class T>
inline void encode(Storage storage, const T* from, int64_t count, void* to) {
  if constexpr (std::is_same_v<T, float>) {
    if (storage == Storage::bfloat16 || storage == Storage::float16) {
      uint16_t* half = static_cast<uint16_t*>(to);
      for (int64_t i = 0; i < count; i += lanes<T>) {
        const int64_t now = count - i < lanes<T> ? count - i : lanes<T>;
        T numbers[lanes<T>] = {};
        std::memcpy(numbers, from + i, now * sizeof(T));
        store(numbers, rounded(storage, load(numbers)));
        for (int64_t j = 0; j < now; ++j) {
          half[i + j] =
              storage == Storage::bfloat16 ? static_cast<uint16_t>(to_bits(numbers[j]) >> 16) : to_float16(numbers[j]);
        }
      }
      return;
    }
  }
  std::memcpy(to, from, count * sizeof(T));
}

// Rows of `width` numbers to and from rows of `padded_width`, of which the rest is zero.
template <class T>
void decode_rows(Storage storage, const void* from, int64_t rows, int64_t width, T* to, int64_t padded_width) {
  if (width == padded_width) return decode<T>(storage, from, rows * width, to);
  for (int64_t i = 0; i < rows; ++i) {
    decode<T>(storage, element(storage, from, i * width), width, to + i * padded_width);
    std::memset(to + i * padded_width + width, 0, (padded_width - width) * sizeof(T));
  }
}

template <class T>
void encode_rows(Storage storage, const T* from, int64_t rows, int64_t width, void* to, int64_t padded_width) {
  if (width == padded_width) return encode<T>(storage, from, rows * width, to);
  for (int64_t i = 0; i < rows; ++i) {
    encode<T>(storage, from + i * padded_width, width, element(storage, to, i * width));
  }
}

}  // namespace
}  // namespace cube
