#!/usr/bin/env bash
# A checkout for a machine that compiles nothing, as one archive with the native modules in it:
#
#     benchmarks/gpu_prebuild.sh PYTHON ARCHITECTURE OUT.tar [FILE...]
#
# PYTHON is an interpreter of the other machine's version, ARCHITECTURE its card's, such as 90. FILE:
# what travels besides, such as the pack of a training; kept under the same path, inside of the
# checkout. Tracked files travel as they are here, but for docs, integrations, studies and models,
# which neither gpu_acceptance.sh nor gpu_training.sh reads. Prints what each part takes; fails
# where all of it is more than LIMIT_MIB (64). Needs nvcc; pybind11 comes from PyPI.
set -euo pipefail

[ $# -ge 3 ] || { sed -n '2,/^set/p' "$0" | sed '$d'; exit 2; }
python=$1 architecture=$2 out=$(realpath -m "$3") limit=${LIMIT_MIB:-64}
shift 3
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z -- . ':!docs' ':!integrations' ':!studies' ':!models' |
  xargs -0 cp --parents -t "$work"
sizes=("checkout $(du -sb --apparent-size "$work" | cut -f1)")

"$python" -m venv "$work/.venv"
"$work/.venv/bin/pip" install --quiet 'pybind11>=2.13' 'setuptools>=68'
(cd "$work" && TRTSEG_CUDA=1 TRTSEG_CUDA_ARCHITECTURES="$architecture" \
  .venv/bin/python setup.py -q build_ext --inplace >build.log 2>&1) || {
  tail -n 30 "$work/build.log" >&2
  exit 1
}
rm -rf "$work"/{.venv,build,build.log}
for module in "$work"/trtseg/_c*.so; do
  strip --strip-unneeded "$module"
  sizes+=("$(basename "$module") $(stat -c %s "$module")")
done
for file in "$@"; do
  cp --parents "$file" "$work"
  sizes+=("$file $(stat -c %s "$file")")
done

tar -C "$work" -cf "$out" .
sizes+=("$(basename "$out") $(stat -c %s "$out")")
printf '%s\n' "${sizes[@]}" | awk '{printf "%9.2f MiB  %s\n", $2 / 2^20, $1}'
[ "$(stat -c %s "$out")" -le $((limit << 20)) ] || { echo "more than $limit MiB" >&2; exit 1; }
