"""Stable Diffusion 1.x and 2.x: what the stock pipeline does with a prompt, a latent and a model, and what becomes of it here.

``StableDiffusionPipeline``'s ``__init__``, ``encode_prompt`` and ``__call__`` in diffusers 0.42;
``tests/models/test_stock.py`` compares.

=====================================================  =========================================================================
the stock pipeline                                     here
=====================================================  =========================================================================
``maybe_convert_prompt``: an embedding of several      the same, for every text: ``tokens.expanded``; where one name of a prompt
vectors is written out, ``<toy> <toy>_1``              lies in another, in the order of the text (there, of a set)
tokenizer: lower case, added tokens, padding, cut      the tokenizer's own, loaded alike; frames other than CLIP's: exit 4
``tokenizer.model_max_length`` above the encoder's     cut at the encoder's length; the pipeline fails on it
``text_encoder.config.use_attention_mask``             exit 4: padding would be masked
``is_causal`` false (read by transformers' masks)      exit 4: every word would see those behind it
``clip_skip``, ``negative_prompt``, prompt weights     the caller's, off by default; ``envelope.LIMITATIONS`` says so
empty prompt for guidance                              the same, encoded alike
guidance above 1, in one batch of two                  the same: ``sample.guided``
guidance of 1 or less                                  the prompt alone, the same
``time_cond_proj_dim``: guidance as an embedding       the same, in every prediction: ``Suspect.predict``; no pass without text
``guidance_rescale``, ``eta``, ``cross_attention_…``   the caller's, off by default; ``envelope.LIMITATIONS`` says so
``sample_size`` below 64 of diffusers before 0.9       64, with a note: ``latent_size``
no ``sample_size``: ``height`` and ``width`` must be   64, as before diffusers 0.9, with a note; ``--size`` sets it
given
``height``, ``width``: multiples of 8                  ``--size``, the same; a model's own size is taken whatever it is
latents: ``vae_scale_factor`` of the VAE's blocks      the same: ``latent_size``
``init_noise_sigma``, ``scale_model_input``            none: latents keep unit variance, as DDIM's; the UNet sees the same scale
scheduler: class, ``steps_offset``, ``clip_sample``    its noise levels and prediction type alone; pictures by DDIM, whatever it
(both set right by ``__init__``), ``skip_prk_steps``,  names: ``envelope.LIMITATIONS``
``timestep_spacing``, ``set_alpha_to_one``, sigmas
scheduler: ``thresholding``                            a note: the pipeline clips latents, this does not
scheduler: flow sigmas, other families' classes,       exit 4
``timestep_type`` continuous: 0.25 log σ for a step
``prediction_type``                                    epsilon and v_prediction; others exit 4 (``load``)
class labels, further embeddings, hidden projection    exit 4: the stock call gives the UNet a text and nothing else
more channels than latents have, into or out of it     exit 4 (``check_channels``)
``vae.config.scaling_factor``                          the same: ``Suspect.decode``
``shift_factor``, ``latents_mean``, ``force_upcast``   not read by this pipeline, nor here
picture to 0–1, clamped                                the same
safety checker, feature extractor, image encoder       not loaded, with a note; a checker may blacken a picture
``StableDiffusion…``, ``LatentConsistencyModel…``      run as ``StableDiffusionPipeline``, with a note
dtype: all parts alike                                 the same, ``--dtype``
=====================================================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packaging.version import InvalidVersion, Version

from bdaudit.errors import BdauditError, InconclusiveError, UsageError
from bdaudit.untrusted.layouts import autoencoder, unet
from bdaudit.untrusted.layouts.autoencoder import AUTOENCODER
from bdaudit.untrusted.layouts.clip import TOKENIZER, TOWER
from bdaudit.untrusted.layouts.layout import Config, Layout, Size
from bdaudit.untrusted.layouts.schedulers import SCHEDULER
from bdaudit.untrusted.layouts.unet import MOST_SIDE, UNET
from bdaudit.untrusted.tree import shown

USUAL = 64
"""What the pipeline takes for a size of old that is smaller, and took where none was named."""
OLD = Version("0.9.0.dev0")
"""Before it, ``sample_size`` was not what pictures were drawn at."""
MOST_NUMBERS = 1 << 30
"""Of one value of a pass on one latent, 4.3 GB in float32: a picture of the largest latent takes as many in a stock autoencoder."""
_BESIDE_TEXT = ("class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim", "encoder_hid_dim_type")


def latent_size(unet: Config, vae: Config, size: Size | None = None) -> tuple[Size, str]:
    """Height and width of the latents, and a note where they are not the ones in ``unet``; ``size`` is ``--size``, (width, height).

    Raises:
        BdauditError: no version where one is named.
        UsageError: a ``--size`` that leaves no latent, or a huge one.
    """
    factor = autoencoder.scale_factor(vae)
    own, note = _own_size(unet)
    if size is None:
        return own, f"{note}; {_at(own, factor)}{_dearer(own, unet)}; --size sets another" if note else ""
    asked = (size[1] // factor, size[0] // factor)
    if not all(1 <= side <= MOST_SIDE for side in asked):
        what = f"--size {size[0]}x{size[1]} gives latents of {asked[1]} × {asked[0]} with this VAE"
        raise UsageError(f"{what}; expected {factor} to {MOST_SIDE * factor} pixels a side")
    here = f"{_at(asked, factor)}, as --size asks{_dearer(asked, unet)}"
    return asked, here if asked == own else f"{here}; without it they would be {own[1]} × {own[0]}"


def _own_size(unet: Config) -> tuple[Size, str]:
    side = unet.get("sample_size")
    if side is None:
        return (USUAL, USUAL), "unet/config.json has no sample_size, so that the pipeline must be told one"
    sides = side if isinstance(side, list) else [side]
    version = unet.get("_diffusers_version")
    if type(side) is int and side < USUAL and _is_old(version):
        said = f"unet/config.json names a sample_size of {side}, and is of diffusers {shown(version)}"
        return (USUAL, USUAL), f"{said}: the pipeline takes {USUAL} for it"
    return (sides[0], sides[-1]), ""


def _is_old(version: Any) -> bool:
    if version is None:
        return False
    try:
        return Version(Version(str(version)).base_version) < OLD
    except InvalidVersion as error:
        raise BdauditError(f"unet/config.json: _diffusers_version is {shown(version)}; expected a version, as 0.42.1") from error


def _at(latents: Size, factor: int) -> str:
    height, width = latents
    return f"latents are {width} × {height}, pictures {width * factor} × {height * factor}"


def _dearer(latents: Size, unet: Config) -> str:
    """What a pass costs beside one at the config's size, where that is more."""
    side = unet.get("sample_size")
    sides = side if isinstance(side, list) else [side or USUAL]
    times = latents[0] * latents[1] / (sides[0] * sides[-1])
    return f", so that time and memory of a pass are {times:.1f} times as much or more" if times > 1 else ""


def _check_unet(config: Config) -> None:
    """Whether the stock call can run it: it gives noise, a timestep, a text and, where asked for, the guidance.

    Raises:
        InconclusiveError: it asks for more.
    """
    named = [key for key in _BESIDE_TEXT if config.get(key) is not None]
    if named:
        asked = f"unet/config.json: {named[0]} is {shown(config[named[0]])}"
        raise InconclusiveError(f"{asked}; a UNet that takes more than a text is not supported")


def check_text_encoder(config: Config, name: str) -> None:
    """Whether texts are encoded as CLIP's are: every word sees those before it, padding included.

    Raises:
        InconclusiveError: the pipeline would mask padding, or let words see what follows.
    """
    where = f"{name}/config.json"
    if config.get("use_attention_mask"):
        raise InconclusiveError(f"{where}: use_attention_mask is set; a text encoder whose padding is masked is not supported")
    if not config.get("is_causal", True):
        raise InconclusiveError(f"{where}: is_causal is off; a text encoder whose words see what follows is not supported")


def check_scheduler(config: Config) -> tuple[str, ...]:
    """Whether the scheduler's table of noise levels says how the model is run; notes.

    Raises:
        InconclusiveError: it goes another way.
    """
    if config.get("use_flow_sigmas"):
        raise InconclusiveError("the scheduler goes along a flow (use_flow_sigmas); only noise levels by a table are supported")
    if config.get("timestep_type") == "continuous":
        raise InconclusiveError("the scheduler's timesteps are continuous (timestep_type); only those that number a table are supported")
    clipped = "scheduler: thresholding is on; the pipeline clips latents on their way, which is not done here"
    return (clipped,) if config.get("thresholding") else ()


def check_channels(unet: Config, vae: Config) -> None:
    """Whether the UNet denoises plain latents: inpainting and the like take further channels, a learned variance comes out of them.

    Raises:
        InconclusiveError: it does not.
    """
    taken, given, latent = unet["in_channels"], unet["out_channels"], vae["latent_channels"]
    if taken != latent:
        raise InconclusiveError(f"the UNet takes {taken} channels where latents have {latent}; only text-to-image is supported")
    if given != latent:
        raise InconclusiveError(f"the UNet gives {given} channels where latents have {latent}; a learned variance is not supported")


def check_cost(unet_config: Config, vae: Config, tokens: int, latents: Size) -> None:
    """Whether one latent's values can be held, whatever widths, depths and sizes the settings combine.

    Raises:
        BdauditError: one of them has more than 2³⁰ numbers.
    """
    check_held({"unet": unet.largest(unet_config, tokens, latents), "vae": autoencoder.largest(vae, latents)}, latents)


def check_held(largest: Mapping[str, int], latents: Size) -> None:
    """Raises ``BdauditError`` where a part's ``largest`` value has more than 2³⁰ numbers."""
    for part, most in largest.items():
        if most > MOST_NUMBERS:
            said = f"{part}: a latent of {latents[1]} × {latents[0]} becomes {4 * most / 1e9:,.1f} GB in one of its layers"
            raise BdauditError(f"{said}; expected at most {4 * MOST_NUMBERS / 1e9:.1f} GB; a smaller --size takes less")


def pipeline_note(named: str, stock: str, how: str = "from a text alone") -> str:
    """A note where the directory names another pipeline than the ``stock`` one, as which it is run."""
    return "" if named == stock else f"the directory names a {shown(named)}; it was run as a {stock}, {how}"


def _as_run(pipeline_class: str, configs: Mapping[str, Config], size: Size | None) -> tuple[Size, list[str]]:
    """Whether the model is run as the stock pipeline runs it: its latents' size, and notes on what differs."""
    check_channels(configs["unet"], configs["vae"])
    _check_unet(configs["unet"])
    check_text_encoder(configs["text_encoder"], "text_encoder")
    notes = check_scheduler(configs["scheduler"])
    latents, drawn_at = latent_size(configs["unet"], configs["vae"], size)
    check_cost(configs["unet"], configs["vae"], configs["text_encoder"]["max_position_embeddings"], latents)
    other = pipeline_note(pipeline_class, "StableDiffusionPipeline", "and what the other adds was not looked at")
    return latents, [note for note in (drawn_at, *notes, other) if note]


LAYOUT = Layout(
    name="stable-diffusion",
    called="a Stable Diffusion 1.x or 2.x pipeline",
    pipelines=r"(StableDiffusion(?!XL|3)\w*|LatentConsistencyModel)Pipeline",
    parts={"tokenizer": TOKENIZER, "text_encoder": TOWER, "unet": UNET, "vae": AUTOENCODER, "scheduler": SCHEDULER},
    vocabularies={"tokenizer": "text_encoder"},
    heeding=("unet", "text_encoder"),
    as_run=_as_run,
    paired=True,
)
