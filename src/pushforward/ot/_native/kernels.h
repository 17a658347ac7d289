// What one compiled copy of the kernels offers; there is a copy for each instruction set.
#pragma once

#include <cstddef>

namespace pushforward {

struct Table {
    double (*sum)(const double* values, std::size_t size);
};

}  // namespace pushforward
