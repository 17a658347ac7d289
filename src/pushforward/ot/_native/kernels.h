// What the kernels take and give: plain buffers of doubles, row-major, owned by the caller.
//
// kernels.cpp is compiled once for each instruction set and includes nothing that brings inline functions of its own: the
// linker keeps one copy of those, of any instruction set, for all.
#pragma once

#include <cstdint>

namespace pushforward {

using Index = std::int64_t;

// Workers that do parts of one task at once (module.cpp).
struct Team {
    int workers;
    void (*run)(void* pool, void (*task)(void* context, int worker), void* context);
    void* pool;
};

// A cost C (n, m), +inf where a pair is forbidden, and what plans are built from.
//
//     P_ij = exp(log_row_i + log_col_j - C_ij / epsilon)
struct Cost {
    Index n, m;
    const double* values;
    double epsilon;
    const double *log_row, *log_col;
};

// A plan that products are taken with. A grid has at most six axes, n = m = the product of their sizes.
struct Plan {
    enum Kind { DENSE, SPARSE, SEPARABLE, FACTORS } kind;
    Index n, m;
    const double* values;                  // DENSE (n, m); SPARSE (entries)
    float* halves;                         // DENSE: memory for (n, m), or null
    const std::int32_t *columns, *starts;  // SPARSE (entries), (n + 1)
    int axes;
    Index sizes[6];
    const double* factors[6];              // SEPARABLE (s_k, s_k), symmetric; FACTORS (other axes, s_k, s_k)
    const double *left, *right;            // SEPARABLE (n), (m); FACTORS left alone
};

// A descent on one kernel: what it is asked, where it stands (kept between calls), what it did.
struct Descent {
    enum Reason { DONE, DRIFTED, STALLED, LIMIT, NOT_FINITE, FACTOR, LATER };

    const double *a, *b;                   // marginals (n), (m)
    double mass, tolerance, forcing, shift;
    double farthest, together;             // |log u|, |log v| and log u + log v at which K must be rebuilt
    Index cg_most, cg_before;              // CG iterations of one system at most; on this kernel in earlier calls
    double (*clock)();
    double began, until;                   // the clock's time now, and that at which to return with steps to do

    Index steps_left, cg_left;             // steps allowed; CG iterations until a factor pays
    double *v, *u, *cols;                  // scalings (m), (n), column sums (m)
    double error, before, best;
    Index sinkhorn_left, waited;

    Index sinkhorn, newton, cg, products;
    Reason reason;
    double* notes;                         // of each step (steps_left, 4): whether it is Newton's; before it: error, products, seconds
};

// Pairs kept of a range of rows; the arrays grow by realloc.
struct Pairs {
    std::int32_t* columns;
    double* costs;
    Index size, room;
};

struct Table {
    void (*build)(const Team&, const Cost&, const double* a, double damping, double centre, double* f, double* plan, double* cols,
                  double* cost_by_col, double* scratch);
    void (*marginals)(const Team&, const Cost&, const double* a, const double* b, double* rows, double* cols, double* scratch);
    bool (*find_near)(const Cost&, const std::int32_t* starts, const std::int32_t* columns, const double* f, const double* g,
                      double radius, Index first, Index last, std::int32_t* counts, Pairs&);
    void (*fill)(const Team&, const Cost&, const std::int32_t* starts, const std::int32_t* columns, const double* a, double* values,
                 double* f, double* cols, double* scratch);
    void (*descend)(const Team&, const Plan&, Descent&, double* scratch);
};

}  // namespace pushforward
