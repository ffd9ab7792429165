#include <algorithm>
#include <cmath>
#include <numbers>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

void RefBackend::execute(const RopeTable& op, const Tensor& /*scratch*/) {
  dispatch_float(op.cos_sin.dtype(), [&]<class T>(T) {
    const int64_t dim = op.cos_sin.dim(1);
    const int64_t half = dim / 2;
    for (int64_t s = 0; s < op.cos_sin.dim(0); ++s) {
      T* cos = row<T>(op.cos_sin, s);
      for (int64_t i = 0; i < half; ++i) {
        const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(dim);
        const double plain = std::pow(op.theta, exponent);
        const double turns = op.scaling.original * plain / (2 * std::numbers::pi);
        const double x = op.scaling.original > 0 ? turns : static_cast<double>(i);
        const double slow = std::clamp((x - op.scaling.start) / (op.scaling.end - op.scaling.start), 0.0, 1.0);
        const double angle = static_cast<double>(s) * plain * ((1 - slow) + slow / op.scaling.factor);
        store(cos[i], std::cos(angle) * op.scaling.amplitude);
        store(cos[half + i], std::sin(angle) * op.scaling.amplitude);
      }
    }
  });
}

void RefBackend::execute(const Rope& op, const Tensor& /*scratch*/) {
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    const int64_t dim = op.x.dim(2);
    const int64_t half = dim / 2;
    for (int64_t t = 0; t < op.x.dim(0); ++t) {
      const auto* cos = row<accumulator_t<T>>(op.cos_sin, t % op.cos_sin.dim(0));
      for (int64_t h = 0; h < op.x.dim(1); ++h) {
        T* x = row<T>(op.x, t) + h * dim;
        for (int64_t i = 0; i < half; ++i) {
          const double c = load(cos[i]);
          const double s = op.inverse ? -load(cos[half + i]) : load(cos[half + i]);
          const double first = load(x[i]), second = load(x[half + i]);
          store(x[i], first * c - second * s);
          store(x[half + i], second * c + first * s);
        }
      }
    }
  });
}

}  // namespace sluice
