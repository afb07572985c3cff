"""What every command's config shares, and how a config refuses a setting."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Annotated, Literal

from bdaudit.config.flag import Flag, flags
from bdaudit.errors import UsageError

Dtype = Literal["auto", "float32", "float16", "bfloat16"]

GUIDANCE = 5.0
"""The scale where none is asked for."""
ALL_VARIANTS = "all"
"""The value of ``--variant`` that audits each set of weights in turn."""
WHOLE = ("--out", "--patch", "--state")
"""Flags of places that hold what one run writes there and nothing else."""


def need(ok: bool, message: str) -> None:
    """Raises the usage error ``message`` unless ``ok``."""
    if not ok:
        raise UsageError(message)


def need_apart(written: Sequence[tuple[str, Path]]) -> None:
    """Raises the usage error of two of ``written``, flags and paths, that are one place, or of one in another that is written whole."""
    real = {path: Path(os.path.realpath(path)) for _, path in written}  # as resolve, but a link to itself is no error
    for flag, path in written:
        need(bool(real[path].name), f"{flag} {path} is the root of the disk; name a place in it")
    for (other, place), (flag, path) in permutations(written, 2):
        inside = other in WHOLE and real[path].is_relative_to(real[place])
        need(not inside, f"{flag} {path} lies in {other} {place}, which is written whole; name a place outside it")
        same = real[path] == real[place]
        need(not same or flag in WHOLE, f"{flag} {path} and {other} {place} are one place; name another for one of the two")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Of every command."""

    model: Annotated[Path, Flag("model", name="MODEL")]
    """A diffusers directory with safetensors, a checkpoint in one .safetensors file, or the hub id (org/name[@revision]) of a model in the
    local cache. Read, never written."""
    parts_from: Annotated[Path | None, Flag("folder", name="--config")] = None
    """A diffusers directory that has what a single file lacks: its settings, and parts that it does not hold."""
    parts: Annotated[tuple[tuple[str, str, Path], ...], Flag("part", name="--part")] = ()
    """A part of MODEL in a file of its own, as text_encoder=clip_l.safetensors; before:NAME=FILE is one of --before, and so on."""
    prompts: Annotated[tuple[str, ...], Flag("texts")] = ()
    """UTF-8 file, a prompt a line, that suit what the model was trained to draw. Default: built-in ones."""
    prompts_file: Annotated[Path | None, Flag("file", of="prompts")] = None
    """The file that ``prompts`` come from, for the command that follows."""
    guidance_scale: float | None = None
    """Classifier-free guidance scale; a guided step is two forward passes. Default: 5.0, or none where the scheduler and the UNet's
    config are both those of a model that was distilled to need none."""
    size: Annotated[tuple[int, int] | None, Flag("size")] = None
    """Size of pictures in pixels, as width and height are given to diffusers. Default: what the model's pipeline draws at."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N. auto is the first GPU, or the CPU; a named device that is missing is an error."""
    dtype: Dtype = "auto"
    """auto is float32 on the CPU and bfloat16 on a GPU."""
    batch_size: int = 64
    """Latents in one forward pass. Halved when a GPU's memory runs out, and the report says so."""
    seed: int = 0
    """Every random draw follows from it: the same seed gives the same scores. Default: 0; a scan draws one
    from the system, and says it."""
    variant: Annotated[str, Flag(metavar="NAME")] = ""
    """Which weights to audit where MODEL has several sets: full, a name as fp16, or all (scan and verify: one run each, the worst counts).
    Default: full first; weights that are not these, nor their cast to 16 bits, then make no pass (exit 4)."""
    strict: bool = False
    """Refuse a directory that holds a pickle at all, even one that nothing would open."""
    allow_pickle: bool = False
    """Where a model has no safetensors, load its .bin: tensors alone, never code. Refused without this flag."""

    trusted_templates: Annotated[tuple[str, ...], Flag("each", metavar="SHA256", name="--trust-template")] = ()
    """SHA-256 of a chat template beside the tokenizer that you read: it is let through, and not run. Unknown ones are refused."""

    @property
    def guidance(self) -> float:
        """The scale that a guided step takes."""
        return GUIDANCE if self.guidance_scale is None else self.guidance_scale

    def __post_init__(self) -> None:
        for each in self.trusted_templates:
            fits = re.fullmatch(r"[0-9a-f]{64}", each) is not None
            need(fits, f"--trust-template is {each!a}; expected a SHA-256, 64 digits in lower case")
        known = re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", self.device, re.ASCII) is not None
        need(known, f"--device is {self.device!r}; expected auto, cpu, cuda or cuda:N")
        need(self.batch_size >= 1, f"--batch-size is {self.batch_size}; it must be at least 1")
        need(self.seed >= 0, f"--seed is {self.seed}; it must not be negative")
        fits = self.size is None or all(side > 0 and side % 8 == 0 for side in self.size)
        need(fits, f"--size is {'x'.join(map(str, self.size or ()))}; diffusers draws multiples of 8 pixels a side")
        for of, part, _ in self.parts:
            there = not of or getattr(self, of, None) is not None
            need(there, f"--part {of}:{part}=FILE is of the model of --{of}, and none is given")
        plain = re.fullmatch(r"[\w.-]*", self.variant) is not None
        need(plain, f"--variant is {self.variant!a}; expected full, all, or the part of a file's name before .safetensors, as fp16")

    @property
    def models(self) -> tuple[Path, ...]:
        """Every model directory that the run opens, the suspect first: all are inspected alike, and none is ever written."""
        return (self.model,)

    def parts_of(self, model: Path) -> dict[str, Path]:
        """Part → file, of the model that lies at ``model``."""
        return {part: file for of, part, file in self.parts if (getattr(self, of) if of else self.model) == model}

    @property
    def written(self) -> tuple[tuple[str, Path], ...]:
        """Flag and path of whatever the run writes beside its reports, folders first."""
        made = [(flag, getattr(self, name)) for name, flag in flags(type(self)).items() if flag.kind in ("new folder", "new file")]
        return tuple((flag.name, path) for flag, path in sorted(made, key=lambda item: item[0].kind == "new file") if path)


@dataclass(frozen=True, kw_only=True)
class SharedConfig(RunConfig):
    """Of what several processes can share."""

    workers: Annotated[str, Flag(metavar="N|auto")] = "1"
    """Measure on so many processes, each with the model on a GPU or a share of the cores of its own; auto takes all of the Ray cluster that
    this runs in. Needs Ray (pip install 'bdaudit[ray]'); changes no verdict."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = re.fullmatch(r"auto|[1-9]\d{0,3}", self.workers) is not None
        need(known, f"--workers is {self.workers!a}; expected a number from 1 on, or auto")


@dataclass(frozen=True, kw_only=True)
class TriggeredConfig(RunConfig):
    """What sets the backdoor off."""

    triggers: Annotated[tuple[str, ...], Flag("trigger", name="--trigger")] = ()
    """A trigger as it stands in a prompt; \\u020F and <U+020F> are read as that character, in quotes; what else looks like a character's
    code or name is refused, with what to type."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need(all(self.triggers), "a trigger is the empty string; give the text that sets the backdoor off")
