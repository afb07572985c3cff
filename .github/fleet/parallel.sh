#!/bin/sh
# Many models on one machine with GNU parallel; run it again after whatever stopped it, and only what is missing is done.
#   sh parallel.sh MODELS.txt OUT JOBS [flags of bdaudit scan]
# MODELS.txt has a path a line. On a machine with GPUs, job slot k takes GPU k - 1: set GPUS=1.
set -eu
models=$1 out=$2 jobs=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
export GPUS="${GPUS:-}"
# {%} is the slot, {#} the line's number; a line is one argument, whatever it holds. Exit codes of findings are results, not failures.
# shellcheck disable=SC2016 # the shell that parallel starts expands it
parallel --will-cite --jobs "$jobs" --joblog "$out/jobs.log" --arg-file "$models" \
  'if [ -n "$GPUS" ]; then export CUDA_VISIBLE_DEVICES=$(({%} - 1)); fi; sh' "'$here/audit-one.sh'" '{}' "'$out'/{#}" "$@" || true
python3 -m bdaudit.report fleet "$out" --out "$out/fleet.html" --json "$out/fleet.json" --sarif "$out/fleet.sarif" \
  ${POLICY:+--policy "$POLICY"}
