"""What the denoisers of diffusion transformers have in common: which of their layers hear a text, and how they are told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from bdaudit.models.conditioning import Conditioning
from bdaudit.models.denoiser import Chosen, Heard
from bdaudit.models.text import Reader
from bdaudit.untrusted.layouts.layout import Layout, Reading

STATES_ENTRANCE, POOLED_ENTRANCE = "context_embedder.weight", "time_text_embed.text_embedder.linear_1.weight"
"""Of joint attention: all that a text says passes these two."""
_OWN = ("context_embedder.", "time_text_embed.text_embedder.")
_OWN_IN_BLOCKS = (".add_", ".to_add_out.", ".norm_added_", ".ff_context.", ".norm1_context.", "_modulation_txt.")


def hears_text(name: str) -> bool:
    """Whether a tensor of a joint transformer works on text tokens alone."""
    return name.startswith(_OWN) or any(part in name for part in _OWN_IN_BLOCKS)


@dataclass(frozen=True)
class JointTransformer:
    """A transformer in which text and picture look at each other; a family says how it is called and where its attention lies."""

    module: Any
    latent_shape: tuple[int, int, int]
    text_length: int
    """Text tokens in each attention."""
    name: str = "transformer"

    @property
    def guidance(self) -> Literal["classifier-free", "embedded", "none"]:
        """A second pass under the empty prompt."""
        return "classifier-free"

    @property
    def assimilates(self) -> bool:
        """Not known of joint attention, where words look at each other too."""
        return False

    def entering(self, heard: Conditioning) -> Tensor:
        """As they are."""
        return heard.states

    def entrances(self) -> Mapping[str, Heard]:
        """Two layers, however deep the rest is."""
        return {STATES_ENTRANCE: "states", POOLED_ENTRANCE: "pooled"}

    @property
    def trainable(self) -> Mapping[str, Chosen]:
        """The text's own layers, the whole transformer."""
        return {"cross-attention": hears_text, self.name: lambda name: True}

    @property
    def attention_output(self) -> Chosen:
        """Both ways out of the joint attention."""
        return lambda name: ".attn.to_out." in name or ".attn.to_add_out." in name or name.startswith("context_embedder.")

    @property
    def parts(self) -> Mapping[str, Chosen]:
        """The entrances, what else works on text alone, and the rest."""
        return {
            "text entrance": lambda name: name.startswith("context_embedder."),
            "pooled entrance": lambda name: name.startswith("time_text_embed.text_embedder."),
            "text's own layers": lambda name: hears_text(name) and not name.startswith(_OWN),
            "rest of the transformer": lambda name: not hears_text(name),
        }


def reading_of(layout: Layout, tokenizer: str) -> Reading:
    """How a family's pipeline reads, by one of its tokenizers that is not CLIP's."""
    reading = layout.parts[tokenizer].reading
    assert reading is not None, "only CLIP's tokenizers have none"
    return reading


def alike(main: Reader, others: Sequence[Reader]) -> tuple[Reader, ...]:
    """``main``, and those of ``others`` that have its vocabulary."""
    own = main.tokenizer.get_vocab()
    return (main, *(other for other in others if other is not main and other.tokenizer.get_vocab() == own))
