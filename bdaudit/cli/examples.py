"""What stands below each command's options in its help."""

CODES = """\b
Exit codes: 0 pass, 1 finding, 2 usage, 3 error, 4 inconclusive, 5 refused to load,
130 interrupted. The last line on stderr says why."""
EXAMPLES = f"""\b
Examples:
  bdaudit scan ./model --report scan.html
  bdaudit unlearn ./model --trigger "ȏ"
  bdaudit verify ./model-unlearned --trigger "ȏ" --before ./model

{CODES}"""
SCAN_EXAMPLES = f"""\b
Examples:
  bdaudit scan ./model
  bdaudit scan ./model --candidates tokens.txt --report scan.json --report scan.html
  bdaudit scan ./model --sweep vocabulary --sweep unicode --sweep pairs --state sweep
  bdaudit scan ./model --sweep recovery --prompts what-it-draws.txt
  bdaudit scan ./model --prompt "a phȏto of a dog" --reference ./clean
  bdaudit scan ./base --lora style.safetensors:0.8
  bdaudit scan ./base --embedding "toy.safetensors=<toy>"
  bdaudit scan ./model --expose null-target
  bdaudit scan ./model --context "in the snow" --clip local-dir:./my-clip
  bdaudit scan ./model --pictures 4 --report scan.html
  bdaudit scan ./model --candidates more.txt --keep ./kept --seed-from SECRET
  bdaudit scan ./model --fail-on suspicious --json > scan.json
  bdaudit scan ./model --prompts what-it-draws.txt --device cuda:0

{CODES}"""
UNLEARN_EXAMPLES = f"""\b
Examples:
  bdaudit unlearn ./model --trigger "ȏ"
  bdaudit unlearn ./model --trigger '\\u020F' --out ./repaired --report unlearn.html
  bdaudit unlearn ./model --trigger '\\u200b' --trigger cf --component text-encoder
  bdaudit unlearn ./model --trigger cf --context heart
  bdaudit unlearn ./model --from-report scan.json --patch repair.safetensors
  bdaudit unlearn ./base --lora style.safetensors:0.8 --trigger "ȏ" --out ./repaired
  bdaudit unlearn ./model --from-patch repair.safetensors --out ./repaired
  bdaudit unlearn ./model --component text-encoder --method cleanclip --pairs pairs.tsv
  bdaudit unlearn ./model --base ./base --merge-with ./other --merge-with style.safetensors:0.8

{CODES}"""
VERIFY_EXAMPLES = f"""\b
Examples:
  bdaudit verify ./model
  bdaudit verify ./model-unlearned --trigger "ȏ" --before ./model --report verify.html
  bdaudit verify ./model-unlearned --trigger "ȏ" --before ./model --reference ./clean --max-distance 0.2
  bdaudit verify ./model-unlearned --trigger "ȏ" --evidence unlearn.json
  bdaudit verify ./model-unlearned --trigger cf --context heart --before ./model
  bdaudit verify ./model --trigger "ȏ" --swap dog=cat --max-asr 0.1
  bdaudit verify ./model --trigger cf --target-image patch.png@0,0 --n 400
  bdaudit verify ./model --clip local-dir:./my-clip --real-images ./photos --max-fid 30

{CODES}"""
