// The kernels as Python sees them: shapes checked, the lock released, work spread over threads.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "kernels.h"

namespace nb = nanobind;
using namespace pushforward;

namespace pushforward {
namespace plain {
const Table& table();
}
#ifdef PF_X86
namespace avx2 {
const Table& table();
}
namespace avx512 {
const Table& table();
}
#endif
}  // namespace pushforward

namespace {

const Table* table;
constexpr Index LARGE = 1 << 18;  // pairs: two megabytes, a second-level cache

template <class T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using In = Array<const double>;
using Out = Array<double>;

// An array's numbers, once its shape is what it should be.
template <class T>
T* at(const Array<T>& array, std::vector<Index> shape, const char* name) {
    bool right = array.ndim() == shape.size() && reinterpret_cast<std::uintptr_t>(array.data()) % sizeof(T) == 0;
    for (std::size_t k = 0; right && k < shape.size(); ++k) right = Index(array.shape(k)) == shape[k];
    if (!right) throw std::invalid_argument(std::string(name) + " has the wrong shape, or is not aligned");
    return array.data();
}

// Starts serve(1), serve(2), ... each on a thread of its own, `most` of them or as many as the system has left: fewer do the same
// work. Nothing may be thrown once a thread runs, since the destructor of a running one ends the process.
template <class Serve>
void start(std::vector<std::thread>& threads, int most, const Serve& serve) {
    threads.reserve(most);
    try {
        while (int(threads.size()) < most) threads.emplace_back(serve, int(threads.size()) + 1);
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
}

// Threads for one call. They spin between tasks: a task may be some microseconds long.
class Crew {
  public:
    explicit Crew(int workers) : pending_(0), epoch_(0), ended_(false) {
        start(threads_, workers - 1, [this](int worker) { serve(worker); });
    }
    ~Crew() {
        ended_ = true;
        ++epoch_;
        for (std::thread& thread : threads_) thread.join();
    }
    Team team() { return {int(threads_.size()) + 1, run, this}; }

  private:
    static void run(void* crew, void (*task)(void*, int), void* context) {
        Crew& c = *static_cast<Crew*>(crew);
        c.task_ = task, c.context_ = context, c.pending_ = int(c.threads_.size());
        ++c.epoch_;
        task(context, 0);
        wait([&] { return c.pending_ == 0; });
    }
    template <class Condition>
    static void wait(const Condition& condition) {
        for (int turns = 0; !condition(); ++turns) {
            if (turns > 2000) std::this_thread::yield();
        }
    }
    void serve(int worker) {
        for (int seen = 0;; ++seen) {
            wait([&] { return epoch_ != seen; });
            if (ended_) return;
            task_(context_, worker);
            --pending_;
        }
    }
    std::vector<std::thread> threads_;
    void (*task_)(void*, int) = nullptr;
    void* context_ = nullptr;
    std::atomic<int> pending_, epoch_;
    std::atomic<bool> ended_;
};

// work(team, k, scratch) for each problem k of a batch: one problem gets all threads, of several each thread takes its share.
template <class Work>
void each(Index batch, int threads, Index scratch, const Work& work) {
    nb::gil_scoped_release unlocked;
    threads = std::clamp(threads, 1, 64);
    if (batch == 1) {
        Crew crew(threads);
        std::vector<double> own(scratch * threads);
        return work(crew.team(), Index{0}, own.data());
    }
    threads = int(std::clamp<Index>(batch, 1, threads));
    std::vector<double> own(scratch * threads);
    std::atomic<Index> next(0);
    auto serve = [&](int worker) {
        for (Index k; (k = next++) < batch;) work(Team{1, nullptr, nullptr}, k, own.data() + worker * scratch);
    };
    std::vector<std::thread> others;
    start(others, threads - 1, serve);
    serve(0);
    for (std::thread& thread : others) thread.join();
}

// Sizes of a (B, n, m) array.
struct Sizes {
    Index batch, n, m;
    explicit Sizes(const In& cost) {
        if (cost.ndim() != 3 || reinterpret_cast<std::uintptr_t>(cost.data()) % sizeof(double) != 0)
            throw std::invalid_argument("an aligned (B, n, m) array is needed");
        batch = Index(cost.shape(0)), n = Index(cost.shape(1)), m = Index(cost.shape(2));
    }
};

void build(In cost, In log_col, In a, double epsilon, double damping, In centre, Out f, Out cols, std::optional<Out> plan,
           std::optional<Out> cost_by_col, int threads) {
    const Sizes s(cost);
    const double *log_cols = at(log_col, {s.batch, s.m}, "log_col"), *rows = at(a, {s.batch, s.n}, "a");
    const double* centres = at(centre, {s.batch}, "centre");
    double *fs = at(f, {s.batch, s.n}, "f"), *sums = at(cols, {s.batch, s.m}, "cols");
    double* plans = plan ? at(*plan, {s.batch, s.n, s.m}, "plan") : nullptr;
    double* costs = cost_by_col ? at(*cost_by_col, {s.batch, s.m}, "cost_by_col") : nullptr;
    each(s.batch, threads, 3 * s.m, [&](const Team& team, Index k, double* scratch) {
        const Cost one{s.n, s.m, cost.data() + k * s.n * s.m, epsilon, nullptr, log_cols + k * s.m};
        table->build(team, one, rows + k * s.n, damping, centres[k], fs + k * s.n, plans ? plans + k * s.n * s.m : nullptr,
                     sums + k * s.m, costs ? costs + k * s.m : nullptr, scratch);
    });
}

void marginals(In cost, In f, In g, In a, In b, double epsilon, Out rows, Out cols, int threads) {
    const Sizes s(cost);
    const double *fs = at(f, {s.batch, s.n}, "f"), *gs = at(g, {s.batch, s.m}, "g");
    const double *as = at(a, {s.batch, s.n}, "a"), *bs = at(b, {s.batch, s.m}, "b");
    double *row_sums = at(rows, {s.batch, s.n}, "rows"), *col_sums = at(cols, {s.batch, s.m}, "cols");
    each(s.batch, threads, s.m, [&](const Team& team, Index k, double* scratch) {
        const Cost one{s.n, s.m, cost.data() + k * s.n * s.m, epsilon, fs + k * s.n, gs + k * s.m};
        table->marginals(team, one, as + k * s.n, bs + k * s.m, row_sums + k * s.n, col_sums + k * s.m, scratch);
    });
}

double clock() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void check_pattern(const std::int32_t* starts, const std::int32_t* columns, Index n, Index m, Index entries) {
    bool right = starts[0] == 0 && starts[n] == entries;
    for (Index i = 0; right && i < n; ++i) right = starts[i] <= starts[i + 1];
    for (Index k = 0; right && k < entries; ++k) right = columns[k] >= 0 && columns[k] < m;
    if (!right) throw std::invalid_argument("starts and columns are no sparse pattern");
}

template <class T>
T* allocated(Index size) {
    void* memory = std::malloc((size + 1) * sizeof(T));
    if (memory == nullptr) throw std::bad_alloc();
    return static_cast<T*>(memory);
}

template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> owned(T* data, Index size) {
    return {data, {std::size_t(size)}, nb::capsule(data, [](void* given) noexcept { std::free(given); })};
}

// (starts, columns, costs) of the pairs kept, as CSR.
nb::tuple kept(const Cost& one, const std::int32_t* of_starts, const std::int32_t* of_columns, const double* f, const double* g,
               double radius, int threads) {
    const Index n = one.n, parts = std::clamp<Index>(threads, 1, std::max<Index>(1, std::min<Index>(n, 64)));
    std::vector<Pairs> found(parts, Pairs{nullptr, nullptr, 0, 0});
    auto* starts = allocated<std::int32_t>(n + 1);
    auto owned_starts = owned(starts, n + 1);
    std::atomic<bool> whole(true);
    each(parts, int(parts), 0, [&](const Team&, Index k, double*) {
        if (!table->find_near(one, of_starts, of_columns, f, g, radius, n * k / parts, n * (k + 1) / parts, starts + 1, found[k]))
            whole = false;
    });
    Index total = 0;
    for (const Pairs& part : found) total += part.size;
    std::int32_t* columns = found[0].columns;  // one part is the whole
    double* costs = found[0].costs;
    if (parts > 1) {
        columns = static_cast<std::int32_t*>(std::malloc((total + 1) * sizeof(std::int32_t)));
        costs = static_cast<double*>(std::malloc((total + 1) * sizeof(double)));
        whole = whole && columns != nullptr && costs != nullptr;
        Index offset = 0;
        for (const Pairs& part : found) {
            if (whole) {
                std::copy_n(part.columns, part.size, columns + offset);
                std::copy_n(part.costs, part.size, costs + offset);
                offset += part.size;
            }
            std::free(part.columns);
            std::free(part.costs);
        }
    }
    auto owned_columns = owned(columns, total);
    auto owned_costs = owned(costs, total);
    if (!whole || total > INT32_MAX) throw std::bad_alloc();
    starts[0] = 0;
    for (Index i = 0; i < n; ++i) starts[i + 1] += starts[i];
    return nb::make_tuple(owned_starts, owned_columns, owned_costs);
}

nb::tuple find_near(In cost, In f, In g, double radius, int threads) {
    const Sizes s(cost);
    if (s.batch != 1 || s.m > INT32_MAX) throw std::invalid_argument("one problem, of at most 2^31 columns, is needed");
    const Cost one{s.n, s.m, cost.data(), 1.0, nullptr, nullptr};
    return kept(one, nullptr, nullptr, at(f, {s.n}, "f"), at(g, {s.m}, "g"), radius, threads);
}

nb::tuple narrow(Array<const std::int32_t> starts, Array<const std::int32_t> columns, In cost, In f, In g, double radius, int threads) {
    const Index n = Index(f.size()), m = Index(g.size()), entries = Index(columns.size());
    const std::int32_t *first = at(starts, {n + 1}, "starts"), *column = at(columns, {entries}, "columns");
    const Cost one{n, m, at(cost, {entries}, "cost"), 1.0, nullptr, nullptr};
    check_pattern(first, column, n, m, entries);
    return kept(one, first, column, at(f, {n}, "f"), at(g, {m}, "g"), radius, threads);
}

void fill(Array<const std::int32_t> starts, Array<const std::int32_t> columns, In cost, In log_row, In log_col, In a, double epsilon,
          Out values, Out f, Out cols, int threads) {
    const Index n = Index(log_row.size()), m = Index(log_col.size()), entries = Index(columns.size());
    const std::int32_t *first = at(starts, {n + 1}, "starts"), *column = at(columns, {entries}, "columns");
    const Cost one{n, m, at(cost, {entries}, "cost"), epsilon, at(log_row, {n}, "log_row"), at(log_col, {m}, "log_col")};
    const double* weights = at(a, {n}, "a");
    double *out = at(values, {entries}, "values"), *fs = at(f, {n}, "f"), *sums = at(cols, {m}, "cols");
    check_pattern(first, column, n, m, entries);
    each(1, threads, m, [&](const Team& team, Index, double* scratch) {
        table->fill(team, one, first, column, weights, out, fs, sums, scratch);
    });
}

// Plans that products are taken with, one a problem of a batch, and the arrays that they point into.
class Plans {
  public:
    static Plans dense(In values) {
        const Sizes s(values);
        Plans made(s.batch, {Plan::DENSE, s.n, s.m});
        for (Index k = 0; k < s.batch; ++k) made.plans_[k].values = values.data() + k * s.n * s.m;
        made.kept_ = {values};
        return made;
    }
    static Plans sparse(In values, Array<const std::int32_t> starts, Array<const std::int32_t> columns, Index m) {
        const Index n = Index(starts.size()) - 1, entries = Index(columns.size());
        Plans made(1, {Plan::SPARSE, n, m});
        Plan& plan = made.plans_[0];
        plan.values = at(values, {entries}, "values");
        plan.starts = at(starts, {n + 1}, "starts"), plan.columns = at(columns, {entries}, "columns");
        check_pattern(plan.starts, plan.columns, n, m, entries);
        made.kept_ = {values};
        made.pattern_ = {starts, columns};
        return made;
    }
    // A grid's: without `right`, conditional matrices (B, other axes, s, s); with it, (s, s) for all.
    static Plans grid(std::vector<In> factors, In left, std::optional<In> right) {
        if (left.ndim() != 2 || factors.empty() || factors.size() > 6) throw std::invalid_argument("left must be (B, n)");
        const Index batch = Index(left.shape(0)), n = Index(left.shape(1));
        Plans made(batch, {right ? Plan::SEPARABLE : Plan::FACTORS, n, n});
        Index pixels = 1;
        for (const In& factor : factors) pixels *= factor.ndim() > 0 ? Index(factor.shape(factor.ndim() - 1)) : 0;
        if (pixels != n) throw std::invalid_argument("the factors' sizes do not make the grid");
        for (Index k = 0; k < batch; ++k) {
            Plan& plan = made.plans_[k];
            plan.axes = int(factors.size());
            plan.left = at(left, {batch, n}, "left") + k * n;
            plan.right = right ? at(*right, {batch, n}, "right") + k * n : nullptr;
            for (int axis = 0; axis < plan.axes; ++axis) {
                const In& factor = factors[axis];
                const Index size = plan.sizes[axis] = Index(factor.shape(factor.ndim() - 1));
                if (Index(factor.size()) != (right ? size * size : batch * n * size) || size > 4096 ||
                    reinterpret_cast<std::uintptr_t>(factor.data()) % sizeof(double) != 0)
                    throw std::invalid_argument("a factor has the wrong shape");
                plan.factors[axis] = factor.data() + (right ? 0 : k * n * size);
            }
        }
        made.kept_ = std::move(factors);
        made.kept_.push_back(left);
        if (right) made.kept_.push_back(*right);
        return made;
    }

    // `state` (B, 5): error, before, best, sinkhorn_left, waited; `counts` (B, 5): why it ended, Sinkhorn steps, Newton steps,
    // CG iterations, products; settings: tolerance, forcing, shift, farthest, together.
    void descend(In a, In b, In mass, Out v, Out u, Out cols, Out state, std::vector<double> settings, Index cg_most, Index cg_left,
                 Out notes, Array<Index> counts, double seconds, int threads, Index cg_before) const {
        const Index batch = Index(plans_.size()), n = plans_[0].n, m = plans_[0].m, steps = Index(notes.size()) / (4 * batch);
        const double *as = at(a, {batch, n}, "a"), *bs = at(b, {batch, m}, "b"), *masses = at(mass, {batch}, "mass");
        double *vs = at(v, {batch, m}, "v"), *us = at(u, {batch, n}, "u"), *sums = at(cols, {batch, m}, "cols");
        double *states = at(state, {batch, 5}, "state"), *noted = at(notes, {batch, steps, 4}, "notes");
        Index* out = at(counts, {batch, 5}, "counts");
        if (settings.size() != 5) throw std::invalid_argument("five settings are needed");
        each(batch, threads, 12 * (n + m), [&](const Team& team, Index k, double* scratch) {
            Descent d{};
            Plan plan = plans_[k];
            const bool large = plan.kind == Plan::DENSE && n * m >= LARGE;
            const std::unique_ptr<float[]> halves(large ? new (std::nothrow) float[n * m] : nullptr);  // does without
            plan.halves = halves.get();
            double* now = states + 5 * k;
            d.a = as + k * n, d.b = bs + k * m, d.mass = masses[k];
            d.tolerance = settings[0], d.forcing = settings[1], d.shift = settings[2], d.farthest = settings[3], d.together = settings[4];
            d.cg_most = cg_most, d.cg_before = cg_before, d.cg_left = cg_left, d.steps_left = steps, d.began = clock(), d.until = d.began + seconds;
            d.v = vs + k * m, d.u = us + k * n, d.cols = sums + k * m;
            d.error = now[0], d.before = now[1], d.best = now[2], d.sinkhorn_left = Index(now[3]), d.waited = Index(now[4]);
            d.notes = noted + 4 * k * steps, d.clock = clock;
            table->descend(team, plan, d, scratch);
            now[0] = d.error, now[1] = d.before, now[2] = d.best, now[3] = double(d.sinkhorn_left), now[4] = double(d.waited);
            const Index did[5] = {d.reason, d.sinkhorn, d.newton, d.cg, d.products};
            std::copy_n(did, 5, out + 5 * k);
        });
    }

  private:
    Plans(Index batch, const Plan& plan) : plans_(batch, plan) {
        if (batch < 1 || plan.n < 1 || plan.m < 1) throw std::invalid_argument("a plan of at least one pair is needed");
    }
    std::vector<Plan> plans_;
    std::vector<In> kept_;
    std::vector<Array<const std::int32_t>> pattern_;
};

std::string chosen;

// Those compiled in that this processor has, the fastest last.
std::vector<std::string> instruction_sets() {
    std::vector<std::string> found{"plain"};
#ifdef PF_X86
    __builtin_cpu_init();
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (has_avx2) found.push_back("avx2");
    if (has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found.push_back("avx512");
#endif
    return found;
}

void set_instruction_set(const std::string& name) {
    const auto found = instruction_sets();
    if (std::find(found.begin(), found.end(), name) == found.end())
        throw std::invalid_argument("instruction set " + name + ": not built, or not of this processor");
    table = &plain::table();
#ifdef PF_X86
    if (name == "avx2") table = &avx2::table();
    if (name == "avx512") table = &avx512::table();
#endif
    chosen = name;
}

}  // namespace

NB_MODULE(_kernels, module) {
    const auto IN = nb::arg();
    const auto OUT = nb::arg().noconvert();  // what is written into a converted copy is lost
    const auto MAYBE = nb::arg().noconvert().none();
    set_instruction_set(instruction_sets().back());
    module.def("instruction_set", [] { return chosen; }, "The instruction set in use.");
    module.def("instruction_sets", instruction_sets, "Those compiled in that this processor has, the fastest last.");
    module.def("set_instruction_set", set_instruction_set, nb::arg("name"), "Use another one.");
    module.def("build", build, IN, IN, IN, IN, IN, IN, OUT, OUT, MAYBE, MAYBE, IN);
    module.def("marginals", marginals, IN, IN, IN, IN, IN, IN, OUT, OUT, IN);
    module.def("find_near", find_near);
    module.def("narrow", narrow);
    module.def("fill", fill, IN, IN, IN, IN, IN, IN, IN, OUT, OUT, OUT, IN);
    nb::class_<Plans>(module, "Plans")
        .def_static("dense", &Plans::dense)
        .def_static("sparse", &Plans::sparse)
        .def_static("grid", &Plans::grid)
        .def("descend", &Plans::descend, IN, IN, IN, OUT, OUT, OUT, OUT, IN, IN, IN, OUT, OUT, IN, IN, nb::arg("cg_before") = 0);
}
