#include "planner/rates/fit.hpp"

#include <algorithm>
#include <cmath>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

double loss(std::span<const double> residuals, double scale) {
  double sum = 0;
  for (const double r : residuals) sum += std::sqrt(1 + (r / scale) * (r / scale)) - 1;
  return sum * scale * scale;
}

// Gaussian elimination with pivots; the matrix is symmetric positive definite by its damping.
std::vector<double> solve(std::vector<std::vector<double>> a, std::vector<double> b) {
  const std::size_t n = b.size();
  for (std::size_t c = 0; c < n; ++c) {
    std::size_t pivot = c;
    for (std::size_t r = c + 1; r < n; ++r)
      if (std::abs(a[r][c]) > std::abs(a[pivot][c])) pivot = r;
    std::swap(a[c], a[pivot]), std::swap(b[c], b[pivot]);
    for (std::size_t r = c + 1; r < n; ++r) {
      const double f = a[r][c] / a[c][c];
      for (std::size_t k = c; k < n; ++k) a[r][k] -= f * a[c][k];
      b[r] -= f * b[c];
    }
  }
  for (std::size_t c = n; c-- > 0;) {
    for (std::size_t k = c + 1; k < n; ++k) b[c] -= a[c][k] * b[k];
    b[c] /= a[c][c];
  }
  return b;
}

}  // namespace

std::vector<double> fit_figures(std::span<const FitFigure> figures, std::size_t residual_count, double robust_scale,
                                const Residuals& residuals) {
  const std::size_t n = figures.size();
  for (const FitFigure& f : figures) TOPOMOE_ASSERT(f.low < f.high && f.low <= f.start && f.start <= f.high);
  const auto value = [&](std::size_t i, double u) { return figures[i].low + u * (figures[i].high - figures[i].low); };
  // Figures differ by orders of magnitude; u in [0, 1] does not.
  std::vector<double> u(n), p(n), now(residual_count), moved(residual_count);
  for (std::size_t i = 0; i < n; ++i) u[i] = (figures[i].start - figures[i].low) / (figures[i].high - figures[i].low);
  const auto evaluate = [&](std::span<const double> at, std::span<double> out) {
    for (std::size_t i = 0; i < n; ++i) p[i] = value(i, at[i]);
    residuals(p, out);
    return loss(out, robust_scale);
  };
  double best = evaluate(u, now), damping = 1e-3;
  std::vector<std::vector<double>> slope(n, std::vector<double>(residual_count));
  for (int round = 0; round < 200; ++round) {
    for (std::size_t i = 0; i < n; ++i) {
      const double step = u[i] < 0.5 ? 1e-5 : -1e-5;
      std::vector<double> at = u;
      at[i] += step;
      evaluate(at, slope[i]);
      for (std::size_t r = 0; r < residual_count; ++r) slope[i][r] = (slope[i][r] - now[r]) / step;
    }
    std::vector<std::vector<double>> normal(n, std::vector<double>(n));
    std::vector<double> gradient(n);
    for (std::size_t r = 0; r < residual_count; ++r) {
      const double weight = 1 / std::sqrt(1 + (now[r] / robust_scale) * (now[r] / robust_scale));
      for (std::size_t i = 0; i < n; ++i) {
        gradient[i] -= weight * slope[i][r] * now[r];
        for (std::size_t j = 0; j <= i; ++j) normal[i][j] += weight * slope[i][r] * slope[j][r];
      }
    }
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = i + 1; j < n; ++j) normal[i][j] = normal[j][i];
    // A figure at its bound that wants beyond it stays there.
    for (std::size_t i = 0; i < n; ++i)
      if ((u[i] <= 0 && gradient[i] < 0) || (u[i] >= 1 && gradient[i] > 0)) {
        for (std::size_t j = 0; j < n; ++j) normal[i][j] = normal[j][i] = 0;
        normal[i][i] = 1, gradient[i] = 0;
      }
    bool better = false;
    const double before = best;
    for (int attempt = 0; attempt < 12 && !better; ++attempt) {
      auto damped = normal;
      for (std::size_t i = 0; i < n; ++i) damped[i][i] += damping * normal[i][i] + 1e-12;
      const auto step = solve(damped, gradient);
      std::vector<double> at(n);
      for (std::size_t i = 0; i < n; ++i) at[i] = std::clamp(u[i] + step[i], 0.0, 1.0);
      const double there = evaluate(at, moved);
      better = there < best;
      if (better) u = at, best = there, now.swap(moved);
      damping = better ? std::max(damping / 5, 1e-9) : damping * 4;
    }
    if (!better || before - best < 1e-9 * before) break;
  }
  std::vector<double> out(n);
  for (std::size_t i = 0; i < n; ++i) out[i] = value(i, u[i]);
  return out;
}

double relative_quantile(std::span<const double> log_residuals, double q) {
  if (log_residuals.empty()) return 0;
  std::vector<double> errors;
  for (const double r : log_residuals) errors.push_back(std::abs(std::expm1(r)));
  std::sort(errors.begin(), errors.end());
  return errors[static_cast<std::size_t>(q * static_cast<double>(errors.size() - 1))];
}

LogFit fit_logs(std::span<const FitFigure> figures, std::size_t residual_count, double robust_scale,
                const Residuals& residuals) {
  LogFit fit{fit_figures(figures, residual_count, robust_scale, residuals), 0};
  std::vector<double> left(residual_count);
  residuals(fit.figures, left);
  fit.spread = relative_quantile(left, 0.9);
  return fit;
}

}  // namespace topomoe
