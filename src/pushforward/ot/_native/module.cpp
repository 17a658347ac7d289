// The kernels as Python sees them, and the choice among their instruction sets.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace nb = nanobind;

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

namespace {

const Table* table;
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

double sum(nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu> values) {
    return table->sum(values.data(), values.size());
}

}  // namespace
}  // namespace pushforward

NB_MODULE(_kernels, module) {
    using namespace pushforward;
    set_instruction_set(instruction_sets().back());
    module.def("instruction_set", [] { return chosen; }, "The instruction set in use.");
    module.def("instruction_sets", instruction_sets, "Those compiled in that this processor has, the fastest last.");
    module.def("set_instruction_set", set_instruction_set, nb::arg("name"), "Use another one.");
    module.def("sum", sum, nb::arg("values"), "The sum of a vector.");
}
