#include <algorithm>
#include <cmath>
#include <vector>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

namespace {

template <class T>
double dot(const T* a, const T* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += load(a[i]) * load(b[i]);
  return sum;
}

// First key that the query at this position of its sequence sees; the last is at the position itself.
int64_t first_key(const AttentionSpec& spec, int64_t position) {
  return spec.window > 0 ? std::max<int64_t>(0, position - spec.window + 1) : 0;
}

}  // namespace

KernelSet RefBackend::execute(const AttentionForward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.q.dtype(), [&]<class T>(T) {
    const int64_t dim = op.q.dim(2), v_dim = op.v.dim(2);
    const int64_t num_heads = op.q.dim(1), group = num_heads / op.k.dim(1), seq_len = op.spec.seq_len;
    std::vector<double> p(static_cast<size_t>(op.spec.keys()));
    for (int64_t t = 0; t < op.q.dim(0); ++t) {
      const int64_t start = t / seq_len * op.spec.keys();  // row of the sequence's first key
      const int64_t i = op.spec.past + t % seq_len, first = first_key(op.spec, i);
      for (int64_t h = 0; h < num_heads; ++h) {
        const T* q = row<T>(op.q, t) + h * dim;
        double most = -INFINITY, sum = 0;
        for (int64_t j = first; j <= i; ++j) {
          double& score = p[static_cast<size_t>(j)];
          score = op.spec.scale * dot<T>(q, row<T>(op.k, start + j) + h / group * dim, dim);
          most = std::max(most, score);
        }
        for (int64_t j = first; j <= i; ++j) sum += std::exp(p[static_cast<size_t>(j)] - most);
        for (int64_t j = first; j <= i; ++j) {
          p[static_cast<size_t>(j)] = std::exp(p[static_cast<size_t>(j)] - most) / sum;
        }
        store(op.lse.data<accumulator_t<T>>()[t * num_heads + h], most + std::log(sum));
        T* o = row<T>(op.o, t) + h * v_dim;
        for (int64_t c = 0; c < v_dim; ++c) {
          double value = 0;
          for (int64_t j = first; j <= i; ++j) {
            value += p[static_cast<size_t>(j)] * load(row<T>(op.v, start + j)[h / group * v_dim + c]);
          }
          store(o[c], value);
        }
      }
    }
  });
  return Kernel::reference;
}

KernelSet RefBackend::execute(const AttentionBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.q.dtype(), [&]<class T>(T) {
    const int64_t dim = op.q.dim(2), v_dim = op.v.dim(2), seq_len = op.spec.seq_len;
    const int64_t num_heads = op.q.dim(1), group = num_heads / op.k.dim(1);
    const double scale = op.spec.scale;
    std::vector<double> dq(static_cast<size_t>(dim));
    // dk and dv of one sequence and key/value head
    std::vector<double> dk(static_cast<size_t>(seq_len * dim)), dv(static_cast<size_t>(seq_len * v_dim));
    for (int64_t start = 0; start < op.q.dim(0); start += seq_len) {
      for (int64_t g = 0; g < op.k.dim(1); ++g) {
        std::fill(dk.begin(), dk.end(), 0);
        std::fill(dv.begin(), dv.end(), 0);
        for (int64_t h = g * group; h < (g + 1) * group; ++h) {
          for (int64_t i = 0; i < seq_len; ++i) {
            const int64_t t = start + i;
            const T* q = row<T>(op.q, t) + h * dim;
            const T* d_o = row<T>(op.d_o, t) + h * v_dim;
            const double lse = load(op.lse.data<accumulator_t<T>>()[t * num_heads + h]);
            const double delta = dot<T>(d_o, row<T>(op.o, t) + h * v_dim, v_dim);
            std::fill(dq.begin(), dq.end(), 0);
            for (int64_t j = first_key(op.spec, i); j <= i; ++j) {
              const T* k = row<T>(op.k, start + j) + g * dim;
              const double p = std::exp(scale * dot<T>(q, k, dim) - lse);
              const double ds = p * (dot<T>(d_o, row<T>(op.v, start + j) + g * v_dim, v_dim) - delta);
              for (int64_t c = 0; c < dim; ++c) {
                dq[static_cast<size_t>(c)] += scale * ds * load(k[c]);
                dk[static_cast<size_t>(j * dim + c)] += scale * ds * load(q[c]);
              }
              for (int64_t c = 0; c < v_dim; ++c) dv[static_cast<size_t>(j * v_dim + c)] += p * load(d_o[c]);
            }
            for (int64_t c = 0; c < dim; ++c) store(row<T>(op.dq, t)[h * dim + c], dq[static_cast<size_t>(c)]);
          }
        }
        for (int64_t j = 0; j < seq_len; ++j) {
          for (int64_t c = 0; c < dim; ++c) {
            store(row<T>(op.dk, start + j)[g * dim + c], dk[static_cast<size_t>(j * dim + c)]);
          }
          for (int64_t c = 0; c < v_dim; ++c) {
            store(row<T>(op.dv, start + j)[g * v_dim + c], dv[static_cast<size_t>(j * v_dim + c)]);
          }
        }
      }
    }
  });
  return Kernel::reference;
}

}  // namespace sluice
