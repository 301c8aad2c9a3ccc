#include <pybind11/pybind11.h>

#include "bindings/backend.h"
#include "bindings/module.h"

PYBIND11_MODULE(TRTSEG_MODULE, m) {
  m.doc() = "Native operations of trtseg on raw arrays; trtseg.ops documents and wraps them.";
  trtseg::bind_platform(m);
  trtseg::bind_distance_map(m);
  trtseg::bind_distance_transform(m);
  trtseg::bind_hypercolumn(m);
  trtseg::bind_add_guidance(m);
  trtseg::bind_jaccard(m);
  trtseg::bind_compose_mask(m);
  trtseg::bind_click_maps(m);
  trtseg::bind_best_map(m);
  trtseg::bind_prepare_image(m);
}
