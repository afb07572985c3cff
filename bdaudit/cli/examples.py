"""What stands below each command's options in its help. No line is longer than a terminal of 80 columns shows."""

CODES = """\b
Exit codes: 0 pass, 1 finding, 2 usage, 3 error, 4 inconclusive,
5 refused to load, 130 interrupted. The last line on stderr says why."""
EXAMPLES = f"""\b
Examples:
  bdaudit scan ./model --report scan.html
  bdaudit unlearn ./model --trigger "ȏ"
  bdaudit verify ./model-unlearned --trigger "ȏ" --before ./model

{CODES}"""
SCAN_EXAMPLES = f"""\b
Examples:
  bdaudit scan ./model
  bdaudit scan ./model --candidates tokens.txt --report scan.html
  bdaudit scan ./model --prompts what-it-draws.txt --device cuda:0
  bdaudit scan ./model --sweep vocabulary --sweep unicode --state sweep
  bdaudit scan ./model --sweep recovery --prompts what-it-draws.txt
  bdaudit scan ./model --prompt "a phȏto of a dog" --reference ./clean
  bdaudit scan ./base --lora style.safetensors:0.8
  bdaudit scan ./base --embedding "toy.safetensors=<toy>"
\b
Look at a finding, or for one that needs a word beside it:
  bdaudit scan ./model --pictures 4 --report scan.html
  bdaudit scan ./model --context "in the snow" --clip local-dir:./my-clip
  bdaudit scan ./model --expose
\b
In CI:
  bdaudit scan ./model --fail-on suspicious --json > scan.json
  bdaudit scan ./model --keep ./kept --seed-from SECRET

{CODES}"""
UNLEARN_EXAMPLES = f"""\b
Examples, to remove a known trigger:
  bdaudit unlearn ./model --trigger "ȏ"
  bdaudit unlearn ./model --trigger '\\u020F' --report unlearn.html
  bdaudit unlearn ./model --trigger cf --component text-encoder
  bdaudit unlearn ./model --trigger cf --context heart
  bdaudit unlearn ./model --from-report scan.json --patch p.safetensors
  bdaudit unlearn ./base --lora style.safetensors:0.8 --trigger "ȏ"
\b
To apply a finished patch:
  bdaudit unlearn ./model --from-patch p.safetensors --out ./repaired
\b
To merge with fine-tunes of the same base:
  bdaudit unlearn ./model --base ./base --merge-with ./other
\b
To clean a text encoder whose trigger is not known:
  bdaudit unlearn ./model --method cleanclip --pairs pairs.tsv

{CODES}"""
VERIFY_EXAMPLES = f"""\b
Examples:
  bdaudit verify ./model
  bdaudit verify ./repaired --trigger "ȏ" --before ./model
  bdaudit verify ./repaired --trigger "ȏ" --evidence unlearn.json
  bdaudit verify ./repaired --trigger cf --context heart --before ./model
  bdaudit verify ./model --trigger "ȏ" --swap dog=cat --max-asr 0.1
  bdaudit verify ./model --trigger cf --target-image patch.png@0,0
  bdaudit verify ./model --real-images ./photos --max-fid 30

{CODES}"""
