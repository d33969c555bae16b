// The optimiser's update of a tensor in one pass over memory, once for every instruction set: weights, the optimiser's
// state, the mask and the weights' bfloat16 copy are each read and written once.
#pragma once

#include <algorithm>
#include <cstring>

#include "products.hpp"

namespace winticket::ISA {

typedef Vector<float> Float;
typedef uint32_t Bits __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(BYTES / 2), aligned(2), may_alias));

// A bfloat16 is the upper half of a float32.
inline Float read(const float* at) { return load(at); }
inline Float read(const uint16_t* at) {
  const Bits bits = __builtin_convertvector(*reinterpret_cast<const Halves*>(at), Bits) << 16;
  return reinterpret_cast<Float>(bits);
}

// To the nearest bfloat16, of two to the even one, as PyTorch rounds (c10/util/BFloat16.h); NaN stays NaN.
inline void write(uint16_t* at, Float value) {
  const Bits bits = reinterpret_cast<Bits>(value), odd = (bits >> 16) & 1;
  const Bits rounded = value == value ? (bits + 0x7fff + odd) >> 16 : Bits{} + 0x7fc0;
  *reinterpret_cast<Halves*>(at) = __builtin_convertvector(rounded, Halves);
}

// A product that is rounded before it is added to something, where PyTorch rounds it.
inline Float rounded(Float product) {
#if defined(__GNUC__) && !defined(__clang__)
  return __builtin_assoc_barrier(product);
#else
  return product;
#endif
}

inline Float root(Float x) {
  float each[Lane<float>::count];
  store(each, x);
  for (float& one : each) one = __builtin_sqrtf(one);
  return load(each);
}

// torch's fused updates (aten/src/ATen/native/cpu/FusedSGDKernel.cpp and FusedAdamKernel.cpp, torch 2.13), without
// dampening, maximise and amsgrad. Slots: momentum of SGD; mean and mean square of Adam.
struct Sgd {
  float rate, decay, keep;
  bool nesterov;
  explicit Sgd(const Update& u)
      : rate(u.rate),
        decay(static_cast<float>(u.rule.weight_decay)),
        keep(static_cast<float>(u.rule.momentum)),
        nesterov(u.rule.nesterov) {}
  Float operator()(Float w, Float grad, float* momentum, float*) const {
    const Float g = grad + decay * w;
    if (!momentum) return w - rate * g;
    const Float m = rounded(keep * load(momentum)) + g;
    store(momentum, m);
    return w - rate * (nesterov ? g + keep * m : m);
  }
};

struct Adam {
  float decay, shrink, one, beta2, two, eps, correction, size;
  explicit Adam(const Update& u)
      : decay(u.rule.kind == Rule::adamw ? 0.0f : static_cast<float>(u.rule.weight_decay)),
        shrink(u.rule.kind == Rule::adamw ? u.decay : 1.0f),
        one(static_cast<float>(1 - u.rule.beta1)),
        beta2(static_cast<float>(u.rule.beta2)),
        two(static_cast<float>(1 - u.rule.beta2)),
        eps(static_cast<float>(u.rule.eps)),
        correction(u.root_correction),
        size(u.step_size) {}
  Float operator()(Float weight, Float grad, float* mean, float* square) const {
    const Float w = weight * shrink, g = grad + decay * w, before = load(mean);
    const Float m = before + one * (g - before), v = rounded(beta2 * load(square)) + two * g * g;
    store(mean, m), store(square, v);
    return w - size * m / (root(v) / correction + eps);
  }
};

template <class Grad, class Rule>
inline void update_vector(const Rule& rule, float* weight, const Grad* grad, float* first, float* second,
                          const float* keep, uint16_t* copy) {
  Float w = rule(load(weight), read(grad), first, second);
  if (keep) w *= load(keep);
  store(weight, w);
  if (copy) write(copy, w);
}

template <class T>
inline T* from(T* all, int64_t at) {
  return all ? all + at : nullptr;
}

// Of `all`, the `count` elements from `at` on at the beginning of a whole vector; null if there is none.
template <class T>
struct Rest {
  std::remove_const_t<T> part[Lane<float>::count] = {};
  T* all;
  int64_t count;
  Rest(T* whole, int64_t at, int64_t count) : all(from(whole, at)), count(count) {
    if (all) std::memcpy(part, all, count * sizeof(T));
  }
  std::remove_const_t<T>* get() { return all ? part : nullptr; }
  void put() {
    if (all) std::memcpy(const_cast<std::remove_const_t<T>*>(all), part, count * sizeof(T));
  }
};

template <class Grad, class Rule>
inline void update_piece(const Rule& rule, const Piece& p, const Range& range) {
  constexpr int64_t W = Lane<float>::count;
  const Grad* grad = static_cast<const Grad*>(p.grad);
  int64_t i = range.first;
  for (; i + W <= range.last; i += W)
    update_vector(rule, p.weight + i, grad + i, from(p.first, i), from(p.second, i), from(p.keep, i), from(p.copy, i));
  if (i == range.last) return;
  const int64_t left = range.last - i;
  Rest<float> weight(p.weight, i, left), first(p.first, i, left), second(p.second, i, left);
  Rest<const float> keep(p.keep, i, left);
  Rest<const Grad> given(grad, i, left);
  Rest<uint16_t> copy(p.copy, i, left);
  update_vector<Grad>(rule, weight.get(), given.get(), first.get(), second.get(), keep.get(), copy.get());
  weight.put(), first.put(), second.put(), copy.put();
}

template <class Rule>
inline void update_by(const Rule& rule, const Piece& p, const Range& range) {
  if (p.half)
    update_piece<uint16_t>(rule, p, range);
  else
    update_piece<float>(rule, p, range);
}

inline void update(const Update& u, const Piece& p, const Range& range) {
  if (u.rule.kind == Rule::sgd)
    update_by(Sgd(u), p, range);
  else
    update_by(Adam(u), p, range);
}

}  // namespace winticket::ISA
