// Cross-entropy of a stack of small batches in one pass: for ten classes, PyTorch's chain of operators costs more in
// dispatch than the whole arithmetic of a sparse network.
#pragma once

#include <cmath>
#include <cstdint>

namespace winticket {

// logits [rows, classes], y [rows] -> the sum of -log softmax(logits)[y], and how many rows have their largest (first
// such) logit at y. `grad`, where not null, becomes scale · ∂(the sum)/∂logits. A row's y outside the classes gives NaN.
template <class T>
void cross_entropy(const T* logits, const int64_t* y, int64_t rows, int64_t classes, T scale, T* grad, double* sum,
                   int64_t* correct) {
  double total = 0;
  int64_t right = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const T* z = logits + i * classes;
    const bool inside = y[i] >= 0 && y[i] < classes;
    int64_t best = 0;
    T most = z[0];
    for (int64_t k = 1; k < classes; ++k)
      if (z[k] > most) most = z[k], best = k;
    T mass = 0;
    if (grad) {
      T* g = grad + i * classes;
      for (int64_t k = 0; k < classes; ++k) mass += g[k] = std::exp(z[k] - most);
      const T share = scale / mass;
      for (int64_t k = 0; k < classes; ++k) g[k] *= share;
      if (inside) g[y[i]] -= scale;
    } else {
      for (int64_t k = 0; k < classes; ++k) mass += std::exp(z[k] - most);
    }
    total += inside ? static_cast<double>(std::log(mass) - (z[y[i]] - most)) : std::nan("");
    right += inside && best == y[i];
  }
  *sum = total;
  *correct = right;
}

}  // namespace winticket
