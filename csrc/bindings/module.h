// One function per file of this folder: adds that op to the module.
#pragma once

#include <pybind11/pybind11.h>

// Every op's name, once.
#define TRTSEG_OPS(EACH)   \
  EACH(add_guidance)       \
  EACH(best_map)           \
  EACH(click_maps)         \
  EACH(compose_mask)       \
  EACH(distance_transform) \
  EACH(guided_upsample)    \
  EACH(hypercolumn)        \
  EACH(jaccard)            \
  EACH(prepare_image)

namespace trtseg {

void bind_platform(pybind11::module_& m);  // threads of _cpu, device queries of _cuda
#define TRTSEG_DECLARE(op) void bind_##op(pybind11::module_& m);
TRTSEG_OPS(TRTSEG_DECLARE)
#undef TRTSEG_DECLARE

}  // namespace trtseg
