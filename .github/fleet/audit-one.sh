#!/bin/sh
# One model, one folder: the job that every scheduler below runs. Exit code of bdaudit; 3 where there is no report.
#   sh audit-one.sh MODEL OUT [flags of bdaudit scan]
# --once: a job that is run again finds its reports whole, and leaves; one that was killed goes on where it was (OUT/scan.state).
set -eu
model=$1 out=$2
shift 2
mkdir -p "$out"
code=0
bdaudit scan "$model" --report "$out/scan.json" --report "$out/scan.html" --once --quiet "$@" >/dev/null || code=$?
test -s "$out/scan.json" || { echo "$model: no report (exit $code)" >&2; exit 3; }
exit "$code"
