// Overlap measures of two boxes (x1, y1, x2, y2) for every device. The formulas are templates over the
// scalar type: gradients are the same formulas on dual numbers.
#pragma once

#include "arithmetic.h"

namespace negvision {

enum class OverlapMode : int64_t { kIoU = 0, kIoF = 1, kGIoU = 2, kDIoU = 3, kCIoU = 4 };

template <typename T>
struct Box {
  T x1, y1, x2, y2;
};

template <typename T>
NV_HD Box<T> load_box(const T* data, int64_t index) {
  const T* p = data + 4 * index;
  return {p[0], p[1], p[2], p[3]};
}

// A value and its partial derivatives by the four coordinates of one box.
template <typename T>
struct Dual {
  T v;
  T d[4];
};

template <typename T>
NV_HD Dual<T> constant(T value) {
  return {value, {T(0), T(0), T(0), T(0)}};
}

template <typename T>
NV_HD Dual<T> add_rn(const Dual<T>& a, const Dual<T>& b) {
  Dual<T> r{add_rn(a.v, b.v), {}};
  for (int i = 0; i < 4; ++i) r.d[i] = a.d[i] + b.d[i];
  return r;
}
template <typename T>
NV_HD Dual<T> sub_rn(const Dual<T>& a, const Dual<T>& b) {
  Dual<T> r{sub_rn(a.v, b.v), {}};
  for (int i = 0; i < 4; ++i) r.d[i] = a.d[i] - b.d[i];
  return r;
}
template <typename T>
NV_HD Dual<T> mul_rn(const Dual<T>& a, const Dual<T>& b) {
  Dual<T> r{mul_rn(a.v, b.v), {}};
  for (int i = 0; i < 4; ++i) r.d[i] = a.d[i] * b.v + a.v * b.d[i];
  return r;
}
template <typename T>
NV_HD Dual<T> div_rn(const Dual<T>& a, const Dual<T>& b) {
  Dual<T> r{div_rn(a.v, b.v), {}};
  for (int i = 0; i < 4; ++i) r.d[i] = (a.d[i] - r.v * b.d[i]) / b.v;
  return r;
}
template <typename T>
NV_HD Dual<T> max_of(const Dual<T>& a, const Dual<T>& b) {
  return a.v > b.v || a.v != a.v ? a : b;
}
template <typename T>
NV_HD Dual<T> min_of(const Dual<T>& a, const Dual<T>& b) {
  return a.v < b.v || a.v != a.v ? a : b;
}

// Through a double, which absorbs the difference between devices.
NV_HD float arctan(float a) { return float(atan(double(a))); }
NV_HD double arctan(double a) { return atan(a); }
template <typename T>
NV_HD Dual<T> arctan(const Dual<T>& a) {
  Dual<T> r{arctan(a.v), {}};
  for (int i = 0; i < 4; ++i) r.d[i] = a.d[i] / (T(1) + a.v * a.v);
  return r;
}

// Converts a plain number to the scalar type of the formula and back.
template <typename S>
struct Scalar {
  using Value = S;
  static NV_HD S of(S value) { return value; }
  static NV_HD S value(S s) { return s; }
};
template <typename T>
struct Scalar<Dual<T>> {
  using Value = T;
  static NV_HD Dual<T> of(T value) { return constant(value); }
  static NV_HD T value(const Dual<T>& s) { return s.v; }
};

template <typename S>
NV_HD S area(const Box<S>& b) {
  return mul_rn(sub_rn(b.x2, b.x1), sub_rn(b.y2, b.y1));
}

template <typename S>
NV_HD S intersection(const Box<S>& a, const Box<S>& b) {
  const S zero = Scalar<S>::of(0);
  const S w = max_of(sub_rn(min_of(a.x2, b.x2), max_of(a.x1, b.x1)), zero);
  const S h = max_of(sub_rn(min_of(a.y2, b.y2), max_of(a.y1, b.y1)), zero);
  return mul_rn(w, h);
}

// What DIoU and CIoU subtract from IoU: the squared center distance over the squared diagonal of the
// enclosing box, and for CIoU the weighted difference of aspect ratios.
template <typename S>
NV_HD S distance_penalty(const Box<S>& a, const Box<S>& b, const S& iou, bool with_aspect, S eps) {
  using Value = typename Scalar<S>::Value;
  const S ew = sub_rn(max_of(a.x2, b.x2), min_of(a.x1, b.x1));
  const S eh = sub_rn(max_of(a.y2, b.y2), min_of(a.y1, b.y1));
  const S diagonal = max_of(add_rn(mul_rn(ew, ew), mul_rn(eh, eh)), eps);
  const S half = Scalar<S>::of(Value(0.5));
  const S dx = mul_rn(half, sub_rn(add_rn(a.x1, a.x2), add_rn(b.x1, b.x2)));
  const S dy = mul_rn(half, sub_rn(add_rn(a.y1, a.y2), add_rn(b.y1, b.y2)));
  S penalty = div_rn(add_rn(mul_rn(dx, dx), mul_rn(dy, dy)), diagonal);
  if (with_aspect) {
    const S angle_a = arctan(div_rn(sub_rn(a.x2, a.x1), max_of(sub_rn(a.y2, a.y1), eps)));
    const S angle_b = arctan(div_rn(sub_rn(b.x2, b.x1), max_of(sub_rn(b.y2, b.y1), eps)));
    const S difference = sub_rn(angle_a, angle_b);
    const Value four_over_pi_squared = Value(0.40528473456935108577551785283891);
    const S v = mul_rn(Scalar<S>::of(four_over_pi_squared), mul_rn(difference, difference));
    // The weight takes no gradient (Zheng et al., AAAI 2020, section "CIoU loss").
    const Value value_v = Scalar<S>::value(v);
    const Value weight =
        value_v / max_of(Value(1) - Scalar<S>::value(iou) + value_v, Scalar<S>::value(eps));
    penalty = add_rn(penalty, mul_rn(Scalar<S>::of(weight), v));
  }
  return penalty;
}

template <typename S>
NV_HD S overlap(const Box<S>& a, const Box<S>& b, OverlapMode mode, S eps) {
  const S inter = intersection(a, b);
  if (mode == OverlapMode::kIoF) return div_rn(inter, max_of(area(a), eps));
  const S both = max_of(sub_rn(add_rn(area(a), area(b)), inter), eps);
  const S iou = div_rn(inter, both);
  if (mode == OverlapMode::kIoU) return iou;
  if (mode == OverlapMode::kGIoU) {
    const S ew = sub_rn(max_of(a.x2, b.x2), min_of(a.x1, b.x1));
    const S eh = sub_rn(max_of(a.y2, b.y2), min_of(a.y1, b.y1));
    const S enclosing = max_of(mul_rn(ew, eh), eps);
    return sub_rn(iou, div_rn(sub_rn(enclosing, both), enclosing));
  }
  return sub_rn(iou, distance_penalty(a, b, iou, mode == OverlapMode::kCIoU, eps));
}

// The box as the variable of differentiation.
template <typename T>
NV_HD Box<Dual<T>> variable(const Box<T>& b) {
  Box<Dual<T>> r{constant(b.x1), constant(b.y1), constant(b.x2), constant(b.y2)};
  r.x1.d[0] = r.y1.d[1] = r.x2.d[2] = r.y2.d[3] = T(1);
  return r;
}
template <typename T>
NV_HD Box<Dual<T>> fixed(const Box<T>& b) {
  return {constant(b.x1), constant(b.y1), constant(b.x2), constant(b.y2)};
}

// Adds grad * d overlap / d (the chosen box) to out[0..3].
template <typename T>
NV_HD void accumulate_overlap_grad(
    const Box<T>& a, const Box<T>& b, bool wrt_a, OverlapMode mode, T eps, T grad, T* out) {
  const Dual<T> r = wrt_a ? overlap(variable(a), fixed(b), mode, constant(eps))
                          : overlap(fixed(a), variable(b), mode, constant(eps));
  for (int i = 0; i < 4; ++i) out[i] += grad * r.d[i];
}

}  // namespace negvision
