#!/usr/bin/env bash
# Proves the GPU path on the card at hand, and measures it:
#
#     benchmarks/gpu_acceptance.sh OUT [--dry-run]
#
# Builds _cuda for this card alone where it is not there yet, runs the GPU tests (end-to-end equality
# among them), times cuDNN on the networks' layers, `trtseg bench` and every kernel, and lets Nsight
# Compute and compute-sanitizer look, where they are installed. A step that fails or takes too long
# stops no other; what no longer fits into BUDGET_S seconds (420, without a build) is left out. OUT
# then holds log.txt, summary.json with all that was measured, summary.md, and Nsight's profile.csv.
# The status is 0 where every step that ran succeeded.
#
# --dry-run goes the same way where there is no GPU: programs run on the CPU at toy size, and GPU
# tests are only collected. Needs torch, CuPy and the test extra. MODEL and FULL name the two models
# (lite and random:full, which onnxscript exports on the spot), PYTHON the interpreter.
set -uo pipefail

[ $# -ge 1 ] || { sed -n '2,/^set/p' "$0" | sed '$d'; exit 2; }
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
dry=${2:-}
[ -z "$dry" ] || [ "$dry" = --dry-run ] || { echo "expected --dry-run, got $dry" >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

python=${PYTHON:-python3} model=${MODEL:-lite} full=${FULL:-random:full}
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD:$PWD/tests:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
export PATH="$PATH:/usr/local/cuda/bin"
# a checkout that is not installed has its export folder outside of the package
[ -e trtseg/export ] || ln -s ../export trtseg/export
rm -f "$out/steps.jsonl"
exec > >(tee "$out/log.txt") 2>&1
logger=$!

# step NAME SECONDS COMMAND...: one line of steps.jsonl, whatever becomes of it
step() {
  local name=$1 limit=$(($2 * patience)) begin=$SECONDS status=null told=
  shift 2
  echo "== $name: $*"
  [ "$limit" -lt $((deadline - SECONDS)) ] || limit=$((deadline - SECONDS))
  if ! command -v "$1" >/dev/null; then
    told="not installed"
  elif [ "$limit" -lt 5 ]; then
    told="no time was left"
  else
    timeout --kill-after=5 "$limit" "$@" </dev/null
    status=$?
  fi
  printf '{"step": "%s", "status": %s, "left_out": "%s", "seconds": %d, "limit_s": %d}\n' \
    "$name" "$status" "$told" $((SECONDS - begin)) "$limit" >>"$out/steps.jsonl"
  echo "== $name: status $status $told after $((SECONDS - begin)) s, $SECONDS s in all"
  [ "$status" = 0 ]
}
patience=1 deadline=${BUDGET_S:-420}
# none of the options that pyproject.toml adds: one process is quickest for a few tests
tests=("$python" -m pytest -q -p no:cacheprovider -o filterwarnings= -o addopts=)
# the fourth run of a stage is recorded: more than so many warm up
bench=("$python" -m trtseg bench --backend torch --force)

if [ -n "$dry" ]; then
  patience=5 deadline=3600 # a CPU, and perhaps a busy one
  export OMP_NUM_THREADS=1 # beside other programs, threads would wait for one another
  tests+=(--collect-only)
  bench+=(--device cpu --size 60x80 --repeats 1 --warmup 0 --clicks 2)
  parallel=() device=cpu small=(--small) full=$model kernels=(--device cpu --side 64 --repeat 2)
  step machine 60 "$python" -c 'from trtseg.machine import describe; print(describe())'
else
  export TRTSEG_REQUIRE_CUDA=1
  bench+=(--device cuda --repeats 20 --warmup 5)
  parallel=() device=cuda small=() kernels=()
  "$python" -c 'import xdist' 2>/dev/null && parallel=(-n 4)
  step machine 20 nvidia-smi \
    --query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem,power.limit --format=csv
  if ! "$python" -c 'from trtseg import _cpu, _cuda; assert _cuda.devices()' 2>/dev/null; then
    card=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
    deadline=$((deadline + 400))
    step build 400 env TRTSEG_CUDA=1 TRTSEG_CUDA_ARCHITECTURES="$card" \
      "$python" setup.py -q build_ext --inplace
  fi
  step smoke 60 "$python" -c 'import cupy, torch
from trtseg import _cuda
ones = cupy.ones((256, 256), "f2")
assert cupy.matmul(ones, ones)[0, 0] == 256
print(torch.cuda.get_device_name(), torch.__version__, cupy.__version__, _cuda.devices())'
fi

step clicks 120 "${tests[@]}" tests/gpu/test_cuda.py
ours="cuda and not ptxas and not emulated and not results_lie"
step ops 150 "${tests[@]}" ${parallel[@]+"${parallel[@]}"} tests/ops -k "$ours" --maxfail=20
step convolutions 90 "$python" benchmarks/gpu_convolutions.py --device "$device" \
  ${small[@]+"${small[@]}"} --json "$out/convolutions.json"
sizes=()
[ -n "$dry" ] || sizes=(--cuda-graphs both --size 480x640 --size 1080x1920)
step bench-lite 90 "${bench[@]}" "$model" ${sizes[@]+"${sizes[@]}"} --concurrency 2 \
  --json "$out/bench-lite.json"
step bench-full 120 "${bench[@]}" "$full" ${sizes[@]+"${sizes[@]}"} --json "$out/bench-full.json"
step kernels 90 "$python" benchmarks/gpu_ops.py ${kernels[@]+"${kernels[@]}"} \
  --json "$out/kernels.json"
if [ -z "$dry" ]; then
  # before it times, the program checks four sizes with two types: the last of them, 480x640
  step profile 60 ncu --clock-control none --set basic --launch-skip 18 --launch-count 6 --csv \
    -k 'regex:hypercolumn|add_guidance|click_maps' --log-file "$out/profile.csv" \
    "$python" benchmarks/gpu_ops.py --side 64 --repeat 1
  for tool in memcheck racecheck; do
    # torch asks the driver what some cards refuse: only what kernels do counts
    step "$tool" 80 compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 9 \
      "${tests[@]}" tests/ops -k "$ours and (33 or 7x5)" --maxfail=3
  done
fi
"$python" benchmarks/gpu_summary.py "$out"
status=$?
exec >&- 2>&-
wait "$logger" # the end of the log
exit $status
