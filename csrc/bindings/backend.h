// Names the namespace that this compilation of the bindings calls into.
#pragma once

#include "core/view.h"

#if !defined(TRTSEG_BACKEND) || !defined(TRTSEG_MODULE)
#error "TRTSEG_BACKEND (cpu or cuda) and TRTSEG_MODULE (_cpu or _cuda) come from CMake"
#endif

namespace trtseg {
namespace TRTSEG_BACKEND {}
namespace backend = TRTSEG_BACKEND;
}  // namespace trtseg
