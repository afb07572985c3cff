#!/bin/sh
# A gate: exit 0 only where `bdaudit verify` passed and left its report. Further flags are handed on.
# BEFORE is the model that carried the backdoor: without it (or --evidence REPORT) nothing shows that TRIGGER ever was one, and it is exit 4.
#   MODEL=./model-unlearned TRIGGER='\u200b' BEFORE=./model POLICY=bdaudit.toml sh verify-model.sh --clip local-dir:./my-clip
set -eu
rm -f verify.json verify.sarif verify.html
code=0
bdaudit verify "$MODEL" --trigger "$TRIGGER" ${BEFORE:+--before "$BEFORE"} ${REFERENCE:+--reference "$REFERENCE"} \
  ${POLICY:+--policy "$POLICY"} --report verify.json --report verify.sarif --report verify.html --quiet "$@" || code=$?
test -s verify.json || { echo "no report: treated as failure" >&2; exit 3; }
exit "$code"
