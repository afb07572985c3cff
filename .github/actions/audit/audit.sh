#!/bin/sh
# One audit with every report; exit code of bdaudit, and 3 where it left no report. VERB, MODEL and FLAGS (one argument a line) say what.
set -eu
case $VERB in scan | verify) ;; *) echo "verb is '$VERB'; expected scan or verify" >&2; exit 2 ;; esac
out=bdaudit-report
mkdir -p "$out"
rm -f "$out"/audit.json "$out"/audit.html "$out"/audit.sarif "$out"/audit.md "$out"/audit.intoto.json
set --
while IFS= read -r argument; do [ -z "$argument" ] || set -- "$@" "$argument"; done <<EOF
$FLAGS
EOF
case $MODEL in -*) MODEL=./$MODEL ;; esac
code=0
bdaudit "$VERB" "$MODEL" --report "$out/audit.json" --report "$out/audit.html" --report "$out/audit.sarif" --report "$out/audit.md" \
  --report "$out/audit.intoto.json" --state "$out/audit.state" --quiet "$@" >/dev/null || code=$?
[ -z "${GITHUB_OUTPUT:-}" ] || echo "exit-code=$code" >>"$GITHUB_OUTPUT"
[ -z "${GITHUB_STEP_SUMMARY:-}" ] || [ ! -s "$out/audit.md" ] || cat "$out/audit.md" >>"$GITHUB_STEP_SUMMARY"
test -s "$out/audit.json" || { echo "no report: treated as failure (exit $code)" >&2; [ "$code" -eq 2 ] || code=3; }
exit "$code"
