// SIMD values for one instruction set: GCC and Clang vector types of CUBE_VECTOR_BYTES bytes.
// Included once by each target; everything is `inline` so that no two targets share code.
#pragma once
#include <cstdint>

namespace cube {
namespace {

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(CUBE_VECTOR_BYTES)));
  typedef uint32_t bits __attribute__((vector_size(CUBE_VECTOR_BYTES)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(CUBE_VECTOR_BYTES)));
  typedef uint64_t bits __attribute__((vector_size(CUBE_VECTOR_BYTES)));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
constexpr int lanes = CUBE_VECTOR_BYTES / sizeof(T);

template <class V>
struct ElementOf;
template <>
struct ElementOf<Vector<float>> {
  using type = float;
};
template <>
struct ElementOf<Vector<double>> {
  using type = double;
};

template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
inline void store(T* to, Vector<T> v) {
  __builtin_memcpy(to, &v, sizeof v);
}

// Minus zero, since adding it would turn -0 into 0 and cost an instruction.
template <class V>
inline V broadcast(typename ElementOf<V>::type value) {
  return value - V{};
}

template <class V>
inline V scaled(V v, double by) {
  return v * static_cast<typename ElementOf<V>::type>(by);
}

template <class V>
inline V select_negative(V v, V negative, V otherwise) {
  return v < V{} ? negative : otherwise;
}

template <class V>
inline V magnitude_up_to(V v, typename ElementOf<V>::type limit) {
  const V a = v < V{} ? -v : v;
  const V top = broadcast<V>(limit);
  return a > top ? top : a;  // in this order a NaN stays a NaN
}

// e^v = power * (1 + rest) with power = 2^n and |rest| < 0.42, so that e^v - 1 keeps its digits near zero.
template <class V>
struct Exponential {
  V power;
  V rest;
};

// Cody-Waite reduction by n * ln 2 and the Taylor polynomial of e^r - 1 for |r| <= ln 2 / 2;
// its first omitted term is below half an ulp.
inline Exponential<Vector<float>> exponential_parts(Vector<float> v) {
  using V = Vector<float>;
  using Bits = VectorOf<float>::bits;
  const float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  const V shifted = v * 1.44269504088896341f + shifter;
  const V n = shifted - shifter;
  const V r = (v - n * 0.693359375f) - n * -2.12194440054690583e-4f;
  V p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * (r * r) + r;
  const Bits exponent = (reinterpret_cast<Bits>(shifted) << 23) + (127u << 23);
  return {reinterpret_cast<V>(exponent), p};
}

inline Exponential<Vector<double>> exponential_parts(Vector<double> v) {
  using V = Vector<double>;
  using Bits = VectorOf<double>::bits;
  const double shifter = 6755399441055744.0;  // 1.5 * 2^52
  const V shifted = v * 1.44269504088896340736 + shifter;
  const V n = shifted - shifter;
  const V r = (v - n * 6.93147180369123816490e-1) - n * 1.90821492927058770002e-10;
  V p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * (r * r) + r;
  const Bits exponent = (reinterpret_cast<Bits>(shifted) << 52) + (uint64_t{1023} << 52);
  return {reinterpret_cast<V>(exponent), p};
}

template <class V>
inline V hyperbolic_tangent(V v) {
  const auto limit = sizeof(typename ElementOf<V>::type) == 4 ? 10 : 20;  // beyond it tanh rounds to 1
  const auto e = exponential_parts(magnitude_up_to(v, limit) * 2);
  const V less_one = e.power * e.rest + (e.power - 1);  // e^(2|v|) - 1
  const V t = less_one / (less_one + 2);
  return v < V{} ? -t : t;
}

template <class V>
inline V logistic(V v) {
  const auto limit = sizeof(typename ElementOf<V>::type) == 4 ? 87 : 708;  // keeps e^-|v| normal
  const auto e = exponential_parts(-magnitude_up_to(v, limit));
  const V small = e.power * e.rest + e.power;
  return (v < V{} ? small : broadcast<V>(1)) / (small + 1);
}

}  // namespace
}  // namespace cube
