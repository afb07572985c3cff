"""What the layouts of diffusion transformers have in common: the size of their latents, and how much one value of a pass holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bdaudit.errors import BdauditError, InconclusiveError, UsageError
from bdaudit.untrusted.layouts.autoencoder import largest
from bdaudit.untrusted.layouts.layout import Config, Size
from bdaudit.untrusted.layouts.stable_diffusion import check_held, latent_size
from bdaudit.untrusted.tree import shown

WIDEST = 65_536
DEEPEST = 256
_MLP = 8
"""How many times as wide as its tokens a block's widest value is, at most: 4 in most, 7 with keys and queries beside it."""


def sized(side: int, patch: int, vae: Config, asked: Size | None) -> tuple[Size, str]:
    """Height and width of the latents where the pipeline draws at ``side``, and a note where ``--size`` asks for another size.

    Raises:
        UsageError: the latents are not cut into whole patches of ``patch``; or as ``latent_size``.
    """
    latents, note = latent_size({"sample_size": side}, vae, asked)
    if any(each % patch for each in latents):
        said = f"latents of {latents[1]} × {latents[0]} are not cut into patches of {patch} × {patch}"
        raise UsageError(f"{said}; say a --size of which each side is a multiple of {asked[0] // latents[1] * patch if asked else patch}")
    return latents, note


def check_cost(width: int, patch: int, text: int, vae: Config, latents: Size, widest: float = _MLP) -> None:
    """Whether one latent's values can be held: ``width`` numbers a token, ``widest`` times as many in a block, ``text`` tokens beside the
    picture's.

    Raises:
        BdauditError: one of them has more than 2³⁰ numbers.
    """
    tokens = latents[0] * latents[1] // patch**2 + text
    check_held({"transformer": int(tokens * width * widest), "vae": largest(vae, latents)}, latents)


def check_widths(wanted: Mapping[str, tuple[int, int]]) -> None:
    """Raises ``BdauditError`` where what a text is to the denoiser, ``wanted`` by name, is not what its encoders give."""
    for name, (takes, given) in wanted.items():
        if takes != given:
            raise BdauditError(
                f"transformer/config.json: {name} is {takes}, and the text encoders give {given}; they do not belong together"
            )


def check_axes(axes: Sequence[int], head: int) -> None:
    """Raises ``BdauditError`` where the axes of a transformer's rotations do not make up a head's numbers."""
    if sum(axes) != head or any(axis % 2 for axis in axes):
        raise BdauditError(f"its axes_dims_rope are {shown(axes, 60)}, its weights have heads of {head}")


def check_channels(takes: int, gives: int, vae: Config) -> None:
    """Raises ``InconclusiveError`` where the transformer does not denoise plain latents alone."""
    latent = vae["latent_channels"]
    if (takes, gives) != (latent, latent):
        said = f"the transformer takes {takes} channels and gives {gives}, where latents have {latent}"
        raise InconclusiveError(f"{said}; only text-to-image is supported")
