#include "bindings/module.h"

#if !defined(TRTSEG_MODULE)
#error "TRTSEG_MODULE (_cpu or _cuda) comes from CMake"
#endif

PYBIND11_MODULE(TRTSEG_MODULE, m) {
  m.doc() = "Native operations of trtseg on raw arrays; trtseg.ops documents and wraps them.";
  trtseg::bind_platform(m);
#define TRTSEG_BIND(op) trtseg::bind_##op(m);
  TRTSEG_OPS(TRTSEG_BIND)
#undef TRTSEG_BIND
}
