"""What a layout says of a family of models: its parts, and of each part what its config may set and what its weights must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bdaudit.untrusted.settings import Settings
from bdaudit.untrusted.shapes import Tensors

Size = tuple[int, int]
"""Height and width."""
Config = Mapping[str, Any]
PIPELINE, GUIDED = "pipeline", "guided"
"""Under what names the pipeline's own settings go with the parts, and whether the run asked for a guidance scale."""
NEVER_LOADED = ("safety_checker", "feature_extractor", "image_encoder")
"""Components that pipelines list and no audit runs."""
_STEMS = {"transformers": "model", "diffusers": "diffusion_pytorch_model"}
_PICKLED = {"transformers": "pytorch_model", "diffusers": "diffusion_pytorch_model"}


def _nothing(config: Config, tensors: Tensors) -> None:
    """No check of its own."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a pipeline puts a text to a tokenizer, where it does not do so as Stable Diffusion does."""

    length: int
    """Tokens that are read, those of the frame among them."""
    lower: bool = False
    """Whether a text is lower-cased, and bare of white space at its ends."""
    prefix: str = ""
    """What is put before every text: an instruction, or the start of a conversation."""
    suffix: str = ""
    """What is put behind it."""
    dropped: int = 0
    """States at the start that the denoiser never hears: those of the prefix."""
    instruction: bool = False
    """Whether the prefix is read beside the ``length`` tokens, and the denoiser hears of it the first state, and of all the last ones."""
    templated: bool = False
    """Whether the pipeline lays a prompt out by the tokenizer's chat template, in place of which prefix and suffix are put."""
    templates: frozenset[str] = frozenset()
    """SHA-256 of those that are known to say just prefix and suffix."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a tokenizer's own file may be."""

    model: str = "BPE"
    """Of ``tokenizers``."""
    most_bytes: int = 8 << 20
    most_items: int = 600_000
    """Commas plus brackets."""
    merges: int | None = None
    """The most that are read; None for as many as there are."""
    beside: frozenset[str] = frozenset()
    """Files that hold the same for old versions of transformers, and may lie beside it."""
    patterns: frozenset[str] = frozenset()
    """Regular expressions that are known to end, whatever they look like."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One folder of a model."""

    library: str
    classes: tuple[str, ...]
    """Of the library; any of them may be named, the usual one comes first."""
    settings: Settings
    """What its config may set, which alone reaches the library."""
    nested: Mapping[str, Settings] = field(default_factory=dict)
    """A setting that is a map → what that may set, which alone of it reaches the library."""
    idle: frozenset[str] = frozenset()
    """Keys that libraries write beside the settings, and that set nothing here."""
    config: str = "config.json"
    described: Callable[[Tensors], dict[str, Any]] | None = None
    """The settings that its weights tell; None for a part without weights."""
    check: Callable[[Config, Tensors], None] = _nothing
    """Raises ``BdauditError`` where config and weights are at odds in another way."""
    constant: str = r"(?!)"
    """Pattern of whole names of tensors that change nothing and may be there or not."""
    canonical: Callable[[str], str] = field(default=str)
    """A tensor's name in a file → its name in the loaded part, whatever version wrote it."""
    reading: Reading | None = None
    """Of a tokenizer: how texts are put to it; None for CLIP's, as long as its tower's positions."""
    vocabulary: Vocabulary = Vocabulary(merges=49_152 - 256 - 2)
    """Of a tokenizer. CLIP's own code and transformers 4 read no more merges."""

    @property
    def stem(self) -> str:
        """What its weights files are called; empty for a part without weights."""
        return _STEMS[self.library] if self.described else ""

    @property
    def pickled(self) -> str:
        """What a pickle of its weights is called."""
        return _PICKLED[self.library]

    def is_constant(self, tensor: str) -> bool:
        """Whether a tensor of that name changes nothing, and is in no digest of tensors."""
        return re.fullmatch(self.constant, tensor) is not None

    def untaken(self, tensors: list[str]) -> list[str]:
        """Of the tensors that a loader took for no part of the model, those that may not be there."""
        return sorted(name for name in tensors if not self.is_constant(name))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One family of models."""

    name: str
    called: str
    """For messages, with its article."""
    pipelines: str
    """Pattern of the pipeline classes of diffusers that it covers."""
    parts: Mapping[str, Part]
    vocabularies: Mapping[str, str]
    """A tokenizer's part → the part that embeds its ids."""
    heeding: tuple[str, ...]
    """The parts that a text goes through, the denoiser first: in them alone a trigger can live, and them alone a repair changes."""
    as_run: Callable[[str, Mapping[str, Config], Size | None], tuple[Size, list[str]]]
    """Pipeline class, configs by part (with what the weights tell) and a picture's width and height → the latents' height and width, and
    notes; raises ``InconclusiveError`` for what is not run as the stock pipeline runs it, ``BdauditError`` for what asks for too much."""

    settings: Settings = field(default_factory=dict)
    """What the pipeline's index may set besides its parts."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """A part → what a pipeline without it is, where that has a name."""
    optional: frozenset[str] = frozenset()
    """Parts that a pipeline may list as null."""
    paired: bool = False
    """Whether its one text encoder was trained beside a vision tower, so that pictures and captions can clean it."""

    def having(self, listed: Collection[str]) -> Layout:
        """The layout of a pipeline that has the parts ``listed`` alone of those that it may lack; a tokenizer goes with its encoder."""
        gone = {name for name in self.optional if name not in listed}
        gone |= {tokenizer for tokenizer, encoder in self.vocabularies.items() if encoder in gone}
        if not gone:
            return self
        kept = {name: part for name, part in self.parts.items() if name not in gone}
        spoken = {tokenizer: encoder for tokenizer, encoder in self.vocabularies.items() if tokenizer not in gone}
        return replace(self, parts=kept, vocabularies=spoken, heeding=tuple(name for name in self.heeding if name not in gone))

    @property
    def models(self) -> dict[str, Part]:
        """The parts that have weights."""
        return {name: part for name, part in self.parts.items() if part.described}
