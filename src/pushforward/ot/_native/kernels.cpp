// The loops over n x m numbers, and the descent that calls them.
//
// Traffic is what a loop moves through memory where its operands do not fit a cache, in bytes for each pair; `exp` says how
// many exponentials it pays for each.
#include "kernels.h"

#include <stdlib.h>

#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))
#define SIMD _Pragma("omp simd")

namespace pushforward::PF_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int LANES = 8;
#elif defined(__AVX2__)
constexpr int LANES = 4;
#else
constexpr int LANES = 2;
#endif
typedef double Lane __attribute__((vector_size(8 * LANES), aligned(8), may_alias));

constexpr double INFINITE = __builtin_inf();
// As in protocol.py: what plans are clamped to, so that no product of two numbers is denormal.
constexpr double LOWEST = -300.0, HIGHEST = 300.0, LOWEST_COST = -1e300, TINY = 2.2250738585072014e-308;
// Multiply-adds under which a second worker costs more than it brings.
constexpr Index GRAIN = 40'000;
// Of `Newton`'s steps: the numbers of newton.py and native.py, where they are explained (test_constants.py compares them).
constexpr double LONGEST_STEP = 10.0, STEEPENING = 1e3, GAINED = 0.66, SHORT = 0.2, FINEST = 0.2, RISE = 1e-4, HIDDEN = 1e-14;
constexpr Index PATIENCE = 100, TRIALS = 30;
constexpr Index LONGEST_AXIS = 4096;
// The CG iteration on a kernel before which, if it is large and dense, it is rounded to floats, which takes as long as two.
constexpr Index HALVED_AT = 5;

// exp(x) = 2^k (1 + r + r^2 q(r)), k = round(x / log 2), |r| <= (log 2) / 2, q interpolated at Chebyshev's points: relative
// error 1.7e-17 before rounding. For |x| <= 700.
INLINE double exponential(double x) {
    constexpr double ROUNDER = 0x1.8p52;  // adding it leaves k in the lowest bits
    const double shifted = x * 0x1.71547652b82fep0 + ROUNDER;
    const double k = shifted - ROUNDER;
    const double r = (x - k * 0x1.62e42fefa3800p-1) - k * 0x1.ef35793c76730p-45;
    double q = 0x1.af38a9b0ec855p-26;
    q = q * r + 0x1.289185613a3d6p-22;
    q = q * r + 0x1.71de0dae63bb3p-19;
    q = q * r + 0x1.a019b90d2ae7ap-16;
    q = q * r + 0x1.a01a01a7c41d5p-13;
    q = q * r + 0x1.6c16c1788bd90p-10;
    q = q * r + 0x1.11111111109b3p-7;
    q = q * r + 0x1.5555555553d63p-5;
    q = q * r + 0x1.5555555555556p-3;
    q = q * r + 0x1.0000000000001p-1;
    const double p = 1.0 + (r + r * r * q);
    std::uint64_t bits, power;  // of which bits may be shifted out
    __builtin_memcpy(&bits, &p, 8);
    __builtin_memcpy(&power, &shifted, 8);
    bits += power << 52;
    double result;
    __builtin_memcpy(&result, &bits, 8);
    return result;
}

INLINE double clamped(double x) {
    x = x > LOWEST ? x : LOWEST;
    return exponential(x < HIGHEST ? x : HIGHEST);
}

// work(first, last, worker) over parts of 0 .. count, each worth `cost` multiply-adds.
template <class Work>
void split(const Team& team, Index count, Index cost, const Work& work) {
    const Index parts = team.workers < count ? team.workers : count;
    if (parts < 2 || count * cost < GRAIN) return work(Index{0}, count, 0);
    struct Context {
        const Work& work;
        Index count, parts;
    } context{work, count, parts};
    team.run(
        team.pool,
        [](void* given, int worker) {
            const Context& c = *static_cast<Context*>(given);
            if (worker < c.parts) c.work(c.count * worker / c.parts, c.count * (worker + 1) / c.parts, worker);
        },
        &context);
}

INLINE void zero(Index size, double* x) {
    SIMD for (Index j = 0; j < size; ++j) x[j] = 0.0;
}

// Adds what the workers summed on their own, (workers, stride), into `out`, which is the first worker's.
void gather(const Team& team, Index size, Index stride, const double* parts, double* out) {
    for (int worker = 1; worker < team.workers; ++worker) {
        const double* part = parts + worker * stride;
        SIMD for (Index j = 0; j < size; ++j) out[j] += part[j];
    }
}

template <class Value>
INLINE double dot(Index size, const Value* x, const double* y) {
    double sum = 0.0;
    _Pragma("omp simd reduction(+ : sum)") for (Index j = 0; j < size; ++j) sum += x[j] * y[j];
    return sum;
}

// The plan at g with exact rows, f_i = -lambda (epsilon log sum_j exp(log_col_j - C_ij / epsilon) + centre), where log_col
// is (g - centre) / epsilon + log b; its column sums and, if asked, the cost by column. Traffic 8, and 8 (16 where writing
// first reads) if the plan is kept; exp 1.
void build(const Team& team, const Cost& cost, const double* a, double damping, double centre, double* f, double* plan, double* cols,
           double* cost_by_col, double* scratch) {
    const Index m = cost.m;
    const double inverse = 1.0 / cost.epsilon, *log_col = cost.log_col;
    for (Index k = 0; k < team.workers * 3 * m; ++k) scratch[k] = 0.0;
    split(team, cost.n, 8 * m, [&](Index first, Index last, int worker) {
        double *sums = scratch + worker * 3 * m, *costs = sums + m, *row = costs + m;
        for (Index i = first; i < last; ++i) {
            const double* c = cost.values + i * m;
            double* p = plan == nullptr ? row : plan + i * m;
            double top = LOWEST_COST, sum = 0.0;
            _Pragma("omp simd reduction(max : top)") for (Index j = 0; j < m; ++j) {
                p[j] = log_col[j] - c[j] * inverse;
                top = p[j] > top ? p[j] : top;
            }
            _Pragma("omp simd reduction(+ : sum)") for (Index j = 0; j < m; ++j) {
                const double x = p[j] - top, e = exponential(x > LOWEST ? x : LOWEST);
                p[j] = c[j] < INFINITE ? e : 0.0;
                sum += p[j];
            }
            const double log_sum = __builtin_log(sum) + top;
            double scale = 0.0;
            f[i] = 0.0;  // of a row without partners
            if (sum > 0.0) {
                f[i] = -damping * (cost.epsilon * log_sum + centre);
                scale = a[i] / sum;
                if (damping != 1.0) scale *= __builtin_exp((1.0 - damping) * (log_sum + centre * inverse));
            }
            SIMD for (Index j = 0; j < m; ++j) {
                p[j] *= scale;
                sums[j] += p[j];
            }
            if (cost_by_col != nullptr) {
                SIMD for (Index j = 0; j < m; ++j) costs[j] += c[j] < INFINITE ? p[j] * c[j] : 0.0;
            }
        }
    });
    gather(team, m, 3 * m, scratch, scratch);
    SIMD for (Index j = 0; j < m; ++j) cols[j] = scratch[j];
    if (cost_by_col != nullptr) {
        gather(team, m, 3 * m, scratch + m, scratch + m);
        SIMD for (Index j = 0; j < m; ++j) cost_by_col[j] = scratch[m + j];
    }
}

// P 1 and P^T 1 of P_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon); log_row is f here, log_col g. Traffic 8, exp 1.
void marginals(const Team& team, const Cost& cost, const double* a, const double* b, double* rows, double* cols, double* scratch) {
    const Index n = cost.n, m = cost.m;
    const double *f = cost.log_row, *g = cost.log_col, inverse = 1.0 / cost.epsilon;
    zero(team.workers * m, scratch);
    split(team, n, 8 * m, [&](Index first, Index last, int worker) {
        double* sums = scratch + worker * m;
        for (Index i = first; i < last; ++i) {
            const double *c = cost.values + i * m, potential = f[i], weight = a[i];
            double sum = 0.0;
            _Pragma("omp simd reduction(+ : sum)") for (Index j = 0; j < m; ++j) {
                const double x = (potential + g[j] - c[j]) * inverse;
                const double e = c[j] < INFINITE ? clamped(x) : 0.0;
                sum += b[j] * e;
                sums[j] += weight * e;
            }
            rows[i] = weight * sum;
        }
    });
    gather(team, m, m, scratch, scratch);
    SIMD for (Index j = 0; j < m; ++j) cols[j] = b[j] * scratch[j];
}

// The pairs of rows first .. last - 1 with f_i + g_j - C_ij >= -radius, row by row, of all or of a pattern; false if there is no
// memory. Traffic 8 a pair
// looked at (12 of a pattern), 12 a pair kept.
bool find_near(const Cost& cost, const std::int32_t* starts, const std::int32_t* columns, const double* f, const double* g, double radius,
               Index first, Index last, std::int32_t* counts, Pairs& pairs) {
    for (Index i = first; i < last; ++i) {
        const Index start = starts == nullptr ? i * cost.m : starts[i], size = starts == nullptr ? cost.m : starts[i + 1] - start;
        if (pairs.room - pairs.size < size) {
            const Index room = 2 * pairs.room + 2 * size;
            void* more_columns = realloc(pairs.columns, room * sizeof(std::int32_t));
            if (more_columns != nullptr) pairs.columns = static_cast<std::int32_t*>(more_columns);
            void* more_costs = realloc(pairs.costs, room * sizeof(double));
            if (more_costs != nullptr) pairs.costs = static_cast<double*>(more_costs);
            if (more_columns == nullptr || more_costs == nullptr) return false;
            pairs.room = room;
        }
        const double *c = cost.values + start, least = -radius - f[i];
        std::int32_t* next_column = pairs.columns + pairs.size;
        double* next_cost = pairs.costs + pairs.size;
        Index count = 0;
        if (starts == nullptr) {
            for (Index j = 0; j < size; ++j) {
                next_column[count] = std::int32_t(j), next_cost[count] = c[j];
                count += g[j] - c[j] >= least;
            }
        } else {
            for (Index k = 0; k < size; ++k) {
                const std::int32_t j = next_column[count] = columns[start + k];
                next_cost[count] = c[k];
                count += g[j] - c[k] >= least;
            }
        }
        counts[i] = std::int32_t(count);
        pairs.size += count;
    }
    return true;
}

// The plan on a sparse pattern around log_row, its rows made exact, f_i += epsilon log (a_i / sum_j P_ij), and its column sums;
// cost.values are those of the pairs kept. Traffic a pair kept: 20; exp 1.
void fill(const Team& team, const Cost& cost, const std::int32_t* starts, const std::int32_t* columns, const double* a, double* values,
          double* f, double* cols, double* scratch) {
    const Index m = cost.m;
    const double inverse = 1.0 / cost.epsilon, *log_col = cost.log_col;
    zero(team.workers * m, scratch);
    split(team, cost.n, 8 * (starts[cost.n] / (cost.n + 1) + 1), [&](Index first, Index last, int worker) {
        double* sums = scratch + worker * m;
        for (Index i = first; i < last; ++i) {
            const double log_row = cost.log_row[i];
            double sum = 0.0;
            _Pragma("omp simd reduction(+ : sum)") for (Index k = starts[i]; k < starts[i + 1]; ++k) {
                values[k] = clamped(log_row + log_col[columns[k]] - cost.values[k] * inverse);
                sum += values[k];
            }
            const double scale = sum > 0.0 && a[i] > 0.0 ? a[i] / sum : 1.0;
            f[i] += cost.epsilon * __builtin_log(scale);
            SIMD for (Index k = starts[i]; k < starts[i + 1]; ++k) {
                values[k] *= scale;
                sums[columns[k]] += values[k];
            }
        }
    });
    gather(team, m, m, scratch, scratch);
    SIMD for (Index j = 0; j < m; ++j) cols[j] = scratch[j];
}

// Four rows and VECTORS vectors of columns of C = A B, kept in registers.
template <int VECTORS>
INLINE void tile(Index inner, Index cols, const double* a, const double* b, double* c) {
    Lane sum[4][VECTORS] = {};
    for (Index k = 0; k < inner; ++k) {
        const Lane* right = reinterpret_cast<const Lane*>(b + k * cols);
        for (int r = 0; r < 4; ++r) {
            for (int v = 0; v < VECTORS; ++v) sum[r][v] += a[r * inner + k] * right[v];
        }
    }
    for (int r = 0; r < 4; ++r) {
        for (int v = 0; v < VECTORS; ++v) reinterpret_cast<Lane*>(c + r * cols)[v] = sum[r][v];
    }
}

// C = A B with A (rows, inner), B (inner, cols), all row-major. The last tile of a side goes back over what is done.
void multiply(Index rows, Index inner, Index cols, const double* a, const double* b, double* c) {
    if (rows < 4 || cols < LANES) {
        for (Index i = 0; i < rows; ++i) {
            zero(cols, c + i * cols);
            for (Index k = 0; k < inner; ++k) {
                for (Index j = 0; j < cols; ++j) c[i * cols + j] += a[i * inner + k] * b[k * cols + j];
            }
        }
        return;
    }
    for (Index i = 0; i < rows; i += 4) {
        const Index row = i + 4 <= rows ? i : rows - 4;
        Index j = 0;
        for (; j + 2 * LANES <= cols; j += 2 * LANES) tile<2>(inner, cols, a + row * inner, b + j, c + row * cols + j);
        for (; j < cols; j += LANES) {
            const Index column = j + LANES <= cols ? j : cols - LANES;
            tile<1>(inner, cols, a + row * inner, b + column, c + row * cols + column);
        }
    }
}

// (E_1 x ... x E_d) x, E_k symmetric: one small matrix product an axis. Traffic a pixel and axis: 16. Returns where the
// result is: x or y, both overwritten.
double* separable(const Plan& plan, double* x, double* y) {
    Index before = 1, after = plan.n;
    for (int k = 0; k < plan.axes; ++k) {
        const Index size = plan.sizes[k];
        after /= size;
        if (after == 1) multiply(before, size, size, x, plan.factors[k], y);
        else
            for (Index p = 0; p < before; ++p) multiply(size, size, after, plan.factors[k], x + p * size * after, y + p * size * after);
        before *= size;
        double* swap = x;
        x = y, y = swap;
    }
    return x;
}

// One conditional matrix an axis, M_k (other axes, s, s), applied along axis k: y[.., x_k] = sum M[.., x_k, y_k] x[.., y_k], or
// its transpose. Traffic a pixel: 8 s_k.
void along(const Team& team, const Plan& plan, int axis, bool transposed, const double* x, double* y) {
    const Index size = plan.sizes[axis];
    Index after = 1;
    for (int k = axis + 1; k < plan.axes; ++k) after *= plan.sizes[k];
    split(team, plan.n / size, size * size, [&](Index first, Index last, int) {
        for (Index other = first; other < last; ++other) {
            const Index at = other / after * size * after + other % after;
            const double *in = x + at, *matrix = plan.factors[axis] + other * size * size;
            double *out = y + at, line[LONGEST_AXIS], sums[LONGEST_AXIS];
            for (Index s = 0; s < size; ++s) line[s] = in[s * after], sums[s] = 0.0;
            for (Index r = 0; r < size; ++r) {
                const double *row = matrix + r * size, factor = line[r];
                if (!transposed) sums[r] = dot(size, row, line);
                else SIMD for (Index s = 0; s < size; ++s) sums[s] += factor * row[s];
            }
            for (Index s = 0; s < size; ++s) out[s * after] = sums[s];
        }
    });
}

// out = K x of a grid, or K^T x; `spare` holds two images.
void grid_product(const Team& team, const Plan& plan, bool transposed, const double* x, double* out, double* spare) {
    double *here = spare, *there = spare + plan.n;
    if (plan.kind == Plan::SEPARABLE) {
        const double *inner = transposed ? plan.left : plan.right, *outer = transposed ? plan.right : plan.left;
        SIMD for (Index i = 0; i < plan.n; ++i) here[i] = inner[i] * x[i];
        const double* image = separable(plan, here, there);
        SIMD for (Index i = 0; i < plan.n; ++i) out[i] = outer[i] * image[i];
        return;
    }
    SIMD for (Index i = 0; i < plan.n; ++i) here[i] = transposed ? plan.left[i] * x[i] : x[i];
    for (int k = 0; k < plan.axes; ++k) {
        along(team, plan, transposed ? k : plan.axes - 1 - k, transposed, here, there);
        double* swap = here;
        here = there, there = swap;
    }
    SIMD for (Index i = 0; i < plan.n; ++i) out[i] = transposed ? here[i] : plan.left[i] * here[i];
}

// One row of a plan that is held as such: its product with x, and its addition to y.
template <class Value>
struct DenseRow {
    Index size;
    const Value* values;
    INLINE_MEMBER double times(const double* x) const { return dot(size, values, x); }
    INLINE_MEMBER void add(double factor, double* y) const { SIMD for (Index j = 0; j < size; ++j) y[j] += factor * values[j]; }
};

struct SparseRow {
    Index size;
    const double* values;
    const std::int32_t* columns;
    INLINE_MEMBER double times(const double* x) const {
        double sum = 0.0;
        _Pragma("omp simd reduction(+ : sum)") for (Index k = 0; k < size; ++k) sum += values[k] * x[columns[k]];
        return sum;
    }
    INLINE_MEMBER void add(double factor, double* y) const {  // columns of a row are different
        SIMD for (Index k = 0; k < size; ++k) y[columns[k]] += factor * values[k];
    }
};

INLINE DenseRow<double> row_of(const Plan& plan, Index i, DenseRow<double>*) { return {plan.m, plan.values + i * plan.m}; }

INLINE DenseRow<float> row_of(const Plan& plan, Index i, DenseRow<float>*) { return {plan.m, plan.halves + i * plan.m}; }

INLINE SparseRow row_of(const Plan& plan, Index i, SparseRow*) {
    const Index start = plan.starts[i];
    return {plan.starts[i + 1] - start, plan.values + start, plan.columns + start};
}

// y = K^T s with s_i = scaling(i, (K x)_i): both products in one pass, since a row's scaling needs that row alone. Traffic
// DENSE 8; SPARSE 12 a pair kept.
template <class Row, class Scaling>
void through_rows(const Team& team, const Plan& plan, const double* x, double* y, double* scratch, const Scaling& scaling) {
    const Index n = plan.n, m = plan.m, each = plan.kind == Plan::DENSE ? m : plan.starts[n] / (n + 1) + 1;
    zero(team.workers * m, scratch);
    split(team, n, 2 * each, [&](Index first, Index last, int worker) {
        double* sums = scratch + worker * m;
        for (Index i = first; i < last; ++i) {
            const Row row = row_of(plan, i, static_cast<Row*>(nullptr));
            const double factor = scaling(i, row.times(x));
            row.add(factor, sums);
        }
    });
    gather(team, m, m, scratch, scratch);
    SIMD for (Index j = 0; j < m; ++j) y[j] = scratch[j];
}

template <class Scaling>
void through(const Team& team, const Plan& plan, const double* x, double* y, double* scratch, const Scaling& scaling) {
    if (plan.kind == Plan::DENSE) return through_rows<DenseRow<double>>(team, plan, x, y, scratch, scaling);
    if (plan.kind == Plan::SPARSE) return through_rows<SparseRow>(team, plan, x, y, scratch, scaling);
    double *s = scratch, *spare = scratch + plan.n;
    grid_product(team, plan, false, x, s, spare);
    for (Index i = 0; i < plan.n; ++i) s[i] = scaling(i, s[i]);
    grid_product(team, plan, true, s, y, spare);
}

// Newton's method on the semi-dual around one kernel; symbols and equations are those of semidual.py and newton.py, where
// the same steps are written with torch.
struct Path {
    const Team& team;
    const Plan& plan;
    Descent& d;
    double *scratch, *root, *weight, *x, *residual, *direction, *image, *input, *left, *new_u, *new_v, *new_cols;
    Index n, m;
    bool halved = false;

    Path(const Team& team_, const Plan& plan_, Descent& d_, double* scratch_)
        : team(team_), plan(plan_), d(d_), n(plan_.n), m(plan_.m) {
        double** const of_columns[] = {&root, &weight, &x, &residual, &direction, &image, &input, &new_v, &new_cols};
        for (double** field : of_columns) *field = scratch_, scratch_ += m;
        left = scratch_, new_u = left + n, scratch = new_u + n;
    }

    // u = a / K v and c = v K^T u. One pass.
    void at(const double* v, double* u, double* c) {
        d.products += 2;
        through(team, plan, v, c, scratch, [&](Index i, double mass) {
            return u[i] = mass > 0.0 ? d.a[i] / mass : 1.0;  // a row of weight zero has no mass to scale
        });
        SIMD for (Index j = 0; j < m; ++j) c[j] *= v[j];
    }

    void move_to(const double* v) {
        at(v, d.u, d.cols);
        measure();
    }

    void measure() {
        double sum = 0.0;
        _Pragma("omp simd reduction(+ : sum)") for (Index j = 0; j < m; ++j) sum += __builtin_fabs(d.b[j] - d.cols[j]);
        d.error = sum / d.mass;
    }

    void note(bool newton) {
        const double note[4] = {double(newton), d.error, double(d.products), d.clock() - d.began};
        for (int k = 0; k < 4; ++k) d.notes[4 * (d.sinkhorn + d.newton) + k] = note[k];
        ++(newton ? d.newton : d.sinkhorn);
        --d.steps_left;
    }

    void sinkhorn() {
        SIMD for (Index j = 0; j < m; ++j) d.v[j] *= d.cols[j] > 0.0 && d.b[j] > 0.0 ? d.b[j] / d.cols[j] : 1.0;
        move_to(d.v);
    }

    // image = direction - D^-1/2 diag(v) K^T diag(left) K diag(v) D^-1/2 direction. One pass; over a large dense K in half the
    // bytes, once it has paid to round it to floats: a direction that good to seven digits is as good as any.
    void hessian() {
        const auto scaling = [&](Index i, double product) { return left[i] * product; };
        SIMD for (Index j = 0; j < m; ++j) input[j] = weight[j] * direction[j];
        const bool in_floats = plan.halves != nullptr && d.cg_before + d.cg >= HALVED_AT;
        if (in_floats && !halved) {
            split(team, n, m, [&](Index first, Index last, int) {
                SIMD for (Index k = first * m; k < last * m; ++k) plan.halves[k] = float(plan.values[k]);
            });
            halved = true;
        }
        if (in_floats) through_rows<DenseRow<float>>(team, plan, input, image, scratch, scaling);
        else through(team, plan, input, image, scratch, scaling);
        SIMD for (Index j = 0; j < m; ++j) image[j] = direction[j] - weight[j] * image[j];
    }

    // Conjugate gradients on H move = b - c in the coordinates in which H's diagonal part is one; the move comes in `x`.
    // False: the iterations left are used up.
    bool solve() {
        double diagonals = 0.0, power = 0.0;
        for (Index j = 0; j < m; ++j) {
            double diagonal = d.cols[j] * (1.0 + d.shift * d.error);
            diagonal = diagonal > TINY ? diagonal : TINY;
            diagonals += diagonal;
            root[j] = 1.0 / __builtin_sqrt(diagonal);
            weight[j] = root[j] * d.v[j];
            residual[j] = direction[j] = root[j] * (d.b[j] - d.cols[j]);
            power += residual[j] * residual[j];
            x[j] = 0.0;
        }
        for (Index i = 0; i < n; ++i) left[i] = d.u[i] * d.u[i] / (d.a[i] > TINY ? d.a[i] : TINY);
        const double near = __builtin_sqrt(STEEPENING * d.error), share = d.forcing * (near < 1.0 ? near : 1.0);
        const double wanted = share * d.error, least = FINEST * d.tolerance;
        const double tolerance = d.mass * (wanted > least ? wanted : least), goal = tolerance * tolerance / diagonals;
        for (Index used = 0; power > goal && used < d.cg_most; ++used) {
            if (d.cg_left == 0) return false;
            --d.cg_left, ++d.cg, d.products += 2;
            hessian();
            const double curvature = dot(m, direction, image);
            if (!(curvature > 0.0)) break;  // rounding: the null space is near
            const double length = power / curvature;
            double next = 0.0;
            _Pragma("omp simd reduction(+ : next)") for (Index j = 0; j < m; ++j) {
                x[j] += length * direction[j];
                residual[j] -= length * image[j];
                next += residual[j] * residual[j];
            }
            const double ratio = next / power;
            power = next;
            SIMD for (Index j = 0; j < m; ++j) direction[j] = residual[j] + ratio * direction[j];
        }
        SIMD for (Index j = 0; j < m; ++j) x[j] *= root[j];
        return true;
    }

    // One Newton step with its line search, which evaluates the whole next point: the first length nearly always serves.
    bool newton() {
        if (!solve()) return false;
        note(true);
        double slope = 0.0, longest = 0.0, length = 1.0;
        for (Index j = 0; j < m; ++j) {
            slope += (d.b[j] - d.cols[j]) * x[j];
            longest = __builtin_fabs(x[j]) > longest ? __builtin_fabs(x[j]) : longest;
        }
        if (longest > LONGEST_STEP) length = LONGEST_STEP / longest;
        for (int trial = 0; trial < TRIALS; ++trial, length *= 0.5) {
            SIMD for (Index j = 0; j < m; ++j) new_v[j] = d.v[j] * clamped(length * x[j]);
            at(new_v, new_u, new_cols);
            double gain = 0.0;
            for (Index i = 0; i < n; ++i) gain += d.a[i] * __builtin_log(new_u[i] / d.u[i]);
            gain += length * dot(m, d.b, x);
            if (gain + HIDDEN * d.mass >= length * slope * RISE) {
                SIMD for (Index j = 0; j < m; ++j) d.v[j] = new_v[j], d.cols[j] = new_cols[j];
                SIMD for (Index i = 0; i < n; ++i) d.u[i] = new_u[i];
                measure();
                after(length);
                return true;
            }
        }
        sinkhorn();
        after(0.0);
        return true;
    }

    void after(double length) { d.sinkhorn_left = length < SHORT ? 2 : 0, d.before = 0.0; }

    bool drifted() const {
        double least_u = INFINITE, most_u = 0.0, least_v = INFINITE, most_v = 0.0;
        for (Index i = 0; i < n; ++i) {
            least_u = d.u[i] < least_u ? d.u[i] : least_u;
            most_u = d.u[i] > most_u ? d.u[i] : most_u;
        }
        for (Index j = 0; j < m; ++j) {
            least_v = d.v[j] < least_v ? d.v[j] : least_v;
            most_v = d.v[j] > most_v ? d.v[j] : most_v;
        }
        if (!(least_u > 0.0 && least_v > 0.0 && most_u < INFINITE && most_v < INFINITE)) return true;
        const double far = __builtin_exp(d.farthest);
        return least_u * far < 1.0 || least_v * far < 1.0 || most_u > far || most_v > far ||
               __builtin_log(most_u) + __builtin_log(most_v) > d.together;
    }

    Descent::Reason run() {
        while (true) {
            if (d.error <= d.tolerance) return Descent::DONE;
            if (!(d.error < INFINITE)) return Descent::NOT_FINITE;
            if (d.steps_left == 0) return Descent::LIMIT;
            if (d.waited > PATIENCE) return Descent::STALLED;
            d.waited = d.error < GAINED * d.best ? 0 : d.waited + 1;
            d.best = d.error < d.best ? d.error : d.best;
            if (d.sinkhorn_left > 0 || d.error < d.forcing * d.before) {
                --d.sinkhorn_left;
                d.before = d.error;
                note(false);
                sinkhorn();
            } else if (!newton()) {
                return Descent::FACTOR;
            }
            if (drifted()) return Descent::DRIFTED;
            if (d.clock() > d.until) return Descent::LATER;
        }
    }
};

void descend(const Team& team, const Plan& plan, Descent& d, double* scratch) {
    d.sinkhorn = d.newton = d.cg = d.products = 0;
    Path path(team, plan, d, scratch);
    d.reason = path.run();
}

}  // namespace

const Table& table() {
    static constexpr Table functions{build, marginals, find_near, fill, descend};
    return functions;
}

}  // namespace pushforward::PF_ISA
