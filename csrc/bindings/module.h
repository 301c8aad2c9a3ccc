// One function per file of this folder: adds that op to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace trtseg {

void bind_platform(pybind11::module_& m);  // threads of _cpu, device queries of _cuda
void bind_distance_map(pybind11::module_& m);
void bind_distance_transform(pybind11::module_& m);
void bind_hypercolumn(pybind11::module_& m);
void bind_add_guidance(pybind11::module_& m);
void bind_jaccard(pybind11::module_& m);
void bind_compose_mask(pybind11::module_& m);
void bind_click_maps(pybind11::module_& m);
void bind_best_map(pybind11::module_& m);
void bind_prepare_image(pybind11::module_& m);

}  // namespace trtseg
