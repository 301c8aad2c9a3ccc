#!/usr/bin/env bash
# tests/ops on a `_cpu` with AddressSanitizer and UBSan: out of bounds, overflow, misaligned, undefined.
#
#     tools/sanitize.sh [PYTEST ARGUMENTS...]
#
# Needs GCC, CMake, and the packages of the test extra in the current Python. Nothing in the checkout
# changes: the package and its tests are copied, for the instrumented module has to be the only one.
# (The CUDA kernels run under the same sanitizers in tests/ops/test_emulated.py.)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r trtseg tests pyproject.toml "$work"
rm -f "$work"/trtseg/_c*.so

flags="-O1 -g1 -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all"
generator=()
if command -v ninja > /dev/null; then generator=(-G Ninja); fi
cmake "${generator[@]}" -S . -B "$work/build" -DTRTSEG_CUDA=0 -DCMAKE_BUILD_TYPE=Sanitize \
  -DCMAKE_CXX_FLAGS="$flags -fno-omit-frame-pointer" -DCMAKE_INSTALL_PREFIX="$work/trtseg" \
  -DPython_EXECUTABLE="$(command -v python)" \
  -Dpybind11_DIR="$(python -c 'import pybind11; print(pybind11.get_cmake_dir())')" > "$work/cmake.log"
cmake --build "$work/build" --parallel "$(nproc)"
cmake --install "$work/build" > /dev/null

# libstdc++ is named too: AddressSanitizer looks for __cxa_throw when the process starts. Python's own
# memory is not freed at exit; a huge allocation has to fail as it does elsewhere.
# No forks: before GCC 14 AddressSanitizer's allocator may be locked by a thread that the child lacks.
kinds="not emulated and not cuda and not ptxas and not torch and not tensors"
cd "$work"
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so.6)" \
ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
UBSAN_OPTIONS=print_stacktrace=1 \
PYTHONMALLOC=malloc OMP_NUM_THREADS=1 \
python -m pytest -q -p no:cacheprovider tests/ops -m "not slow" \
  -k "$kinds and not 480x640 and not forked" "$@"
