#!/usr/bin/env bash
# Trains on the GPU at hand:
#
#     benchmarks/gpu_training.sh OUT [--dry-run]
#
# Packs the photographs of SOURCE (configs/lite.json) into PACK (runs/pack.safetensors, where the
# configuration looks for it) unless it is there, and trains CONFIG (configs/lite_gpu.json) for at
# most MINUTES (7); a second call goes on. OUT then holds the checkpoint `model` (the averaged
# weights, once all stages are done), `last`, log.csv and log.txt.
#
# --dry-run trains one step on the CPU. PYTHON names the interpreter.
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,/^set/p' "$0" | sed '$d'; exit 2; }
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
dry=${2:-}
[ -z "$dry" ] || [ "$dry" = --dry-run ] || { echo "expected --dry-run, got $dry" >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3} config=${CONFIG:-configs/lite_gpu.json}
source=${SOURCE:-configs/lite.json} pack=${PACK:-runs/pack.safetensors}
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
# a checkout that is not installed has its export folder outside of the package
[ -e trtseg/export ] || ln -s ../export trtseg/export
exec > >(tee -a "$out/log.txt") 2>&1
logger=$!

cores=$(getconf _NPROCESSORS_ONLN) device=cuda:0 minutes=${MINUTES:-7} resume=()
if [ -n "$dry" ]; then
  device=cpu minutes=0 cores=1
fi
[ ! -e "$out/last" ] || resume=(--resume)
if [ ! -e "$pack" ]; then
  [ -e "$source" ] || { echo "neither $pack nor $source is there" >&2; exit 2; }
  mkdir -p "$(dirname "$pack")"
  "$python" -m trtseg pack "$source" "$pack" --threads "$cores"
fi
"$python" -m trtseg train "$config" --output "$out" --device "$device" --workers "$cores" \
  --max-minutes "$minutes" --save-every 200 ${resume[@]+"${resume[@]}"}
exec >&- 2>&-
wait "$logger" # the end of the log
