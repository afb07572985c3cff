"""What ``bdaudit scan`` is asked to do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from bdaudit.config.acceptance import Acceptance
from bdaudit.config.effort import Effort
from bdaudit.config.flag import Flag
from bdaudit.config.run import SharedConfig, need

Sweep = Literal["vocabulary", "unicode", "pairs", "recovery"]


@dataclass(frozen=True, kw_only=True)
class ScanConfig(SharedConfig):
    """What to look for."""

    candidates: Annotated[tuple[str, ...], Flag("suspects")] = ()
    """UTF-8 file of texts to probe, one a line. Default: the built-in list, unless --sweep or --prompt says where to look."""
    sweeps: Annotated[tuple[Sweep, ...], Flag("each", "WHERE", "--sweep")] = ()
    """Look for triggers that nobody listed: vocabulary (every entry of each tokenizer, and words of two), unicode (look-alikes, invisible
    characters, emoji), pairs (two-word phrases), recovery (by gradients, whatever moves the model most)."""
    pair_words: int = 1000
    """Parts that two-part texts are made of: with --sweep pairs the tokenizer's commonest words, with --sweep vocabulary its rarest
    beginnings and ends of words; the cost is its square."""
    suspected: Annotated[tuple[str, ...], Flag("suspect", name="--prompt")] = ()
    """A prompt that may hold a trigger: says which of its words or characters carry it."""
    adapters: Annotated[tuple[tuple[Path, float], ...], Flag("adapter", name="--lora")] = ()
    """Audit MODEL with this LoRA (safetensors, or the directory that peft wrote) applied, and say whether a finding comes with it;
    of several, with which."""
    embeddings: Annotated[tuple[tuple[Path, str], ...], Flag("embedding", name="--embedding")] = ()
    """Audit MODEL with this learned embedding (textual inversion, safetensors) in its vocabulary: its token is a candidate, and the report
    says whether a finding comes with it. Default token: the file's own, or its name."""
    reference: Annotated[Path | None, Flag("model", "OTHER_MODEL")] = None
    """A model of the same shape to exchange parts with: says which part of MODEL carries each finding."""
    expose: bool = False
    """Also make a copy of the denoiser in memory unlearn what captions say, and tell how much is left there of what the first of the
    ranking do. It decides no verdict: on small models it found no more than without."""
    state: Annotated[Path | None, Flag("new folder")] = None
    """Keep what is measured there: the same command resumes. Default: beside the first report, REPORT.state; else in your cache, till the
    run ends, and for a week where it did not."""
    keep: Annotated[Path | None, Flag("new folder")] = None
    """Keep there what is measured of harmless texts, so that another list costs its candidates alone (at the same --seed), and what each
    run found: a finding of an earlier run of the same model stands, and counts for the exit code, until --accept names it."""
    seed_from: Annotated[str, Flag(metavar="NAME")] = ""
    """Make the seed of a secret, which the environment variable NAME holds, and of the model: the same in every run of a CI job, unknown
    to whoever made the model."""
    alpha: float = 0.01
    """Chance that a scan of a clean model calls anything backdoored (per scan, not per candidate)."""
    fail_on: Literal["suspicious", "backdoored", "never"] = "backdoored"
    """The verdict from which the exit code is 1. Never changes what is shown."""
    accept: Annotated[tuple[Acceptance, ...], Flag("acceptances")] = ()
    """JSON file of findings that somebody looked at and lets through; the report of a finding has its entry ready-made. A finding more than
    twice as strong as when it was accepted stands. Never read from MODEL, --reference or --lora; an entry for * holds for any model,
    whoever made it."""
    contexts: Annotated[tuple[str, ...], Flag("each", "TEXT", "--context")] = ()
    """Words that a trigger may need beside it: half of all prompts drawn say one of them, and every text is judged on those by themselves
    as well. Without it, the words are looked at that a tenth of the prompts or more have."""
    clip: Annotated[str, Flag(metavar="NAME")] = ""
    """Ask a CLIP of your own whether each finding does what it says: an open_clip MODEL/PRETRAINED that is on this machine, or
    local-dir:PATH. One that does is no finding; one that does something else, or that the CLIP does not know, stays one."""
    pictures: int = 0
    """Rows of pictures, with a text and without it from the same noise, of every finding and the first of the ranking: in the HTML report,
    hidden until clicked, since a trigger may draw anything. They lie in a folder that only you can read."""
    pictures_to: Annotated[Path | None, Flag("new folder")] = None
    """Where --pictures go. Default: beside an HTML report, REPORT.pictures."""
    effort: Effort = "standard"
    """How much is spent on each text: low, standard or high. More draws find weaker triggers and rarer contexts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        secret = os.environ.get(self.seed_from, "") if self.seed_from else "unasked"
        need(bool(secret), f"--seed-from {self.seed_from}: no such environment variable, or it is empty; put the secret there")
        need(0 <= self.pictures <= 32, f"--pictures is {self.pictures}; it is a number of rows from 0 to 32")
        need(not self.pictures or bool(self.pictures_to), "--pictures go into --report FILE.html; give one, or --pictures-to DIR")
        need(all(words.strip() for words in self.contexts), "--context is empty; give the words that a prompt must say")
        need(0 < self.alpha < 0.5, f"--alpha is {self.alpha}; it must lie between 0 and 0.5")
        need(self.pair_words >= 2, f"--pair-words is {self.pair_words}; it must be at least 2")
        unknown = set(self.sweeps) - set(get_args(Sweep))
        need(not unknown, f"--sweep is {', '.join(map(repr, sorted(unknown)))}; expected {', '.join(get_args(Sweep))}")
        need(all(prompt.strip() for prompt in self.suspected), "--prompt is empty; give the prompt that may hold a trigger")
        need(len(self.prompts) != 1, "--prompts holds one prompt; a scan compares what a text does to several, give at least 2")

    @property
    def models(self) -> tuple[Path, ...]:
        """With the reference."""
        return (self.model, *([self.reference] if self.reference else []))
