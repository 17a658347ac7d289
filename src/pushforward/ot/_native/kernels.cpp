// Compiled once for each instruction set, which PF_ISA names.
//
// Include nothing here that brings inline functions: the linker keeps one copy of each, of whichever instruction set, for all.
#include "kernels.h"

namespace pushforward::PF_ISA {
namespace {

double sum(const double* values, std::size_t size) {
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (std::size_t i = 0; i < size; ++i) total += values[i];
    return total;
}

}  // namespace

const Table& table() {
    static const Table functions{sum};
    return functions;
}

}  // namespace pushforward::PF_ISA
