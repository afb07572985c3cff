"""Schedulers that walk from noise to picture by a table of ᾱ_t, or along a flow: their settings, which are the union of what diffusers'
own take.

The classes read each other's configs, so that a key of another one is ordinary.
"""

from __future__ import annotations

from dataclasses import replace

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.layouts.layout import Config, Part
from bdaudit.untrusted.settings import FLAG, NAME, NULL, WORD, listed, number, optional, whole

_STEPS = 100_000
_amount = number(-1e6, 1e6)

SCHEDULER = Part(
    library="diffusers",
    classes=tuple(
        f"{name}Scheduler"
        for name in (
            "DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSDE", "DPMSolverSinglestep",
            "EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "KDPM2AncestralDiscrete", "KDPM2Discrete", "LCM", "LMSDiscrete",
            "PNDM", "SASolver", "TCD", "UniPCMultistep",
        )
    ),
    config="scheduler_config.json",
    settings={
        "num_train_timesteps": whole(1, _STEPS),
        "original_inference_steps": whole(1, _STEPS),
        "steps_offset": whole(-_STEPS, _STEPS),
        "trained_betas": optional(listed(number(0, 1), _STEPS)),
        "lambda_min_clipped": number(float("-inf"), 1e6),
        "disable_corrector": optional(listed(whole(0, _STEPS), _STEPS)),
        "variance_type": optional(NAME),
        "noise_sampler_seed": optional(whole(0, 2**63)),
        **dict.fromkeys(("beta_start", "beta_end", "dynamic_thresholding_ratio"), number(0, 1)),
        **dict.fromkeys(("sigma_min", "sigma_max", "shift_terminal"), optional(_amount)),
        **dict.fromkeys(("clip_sample_range", "sample_max_value", "timestep_scaling", "flow_shift"), _amount),
        **dict.fromkeys(("solver_order", "predictor_order", "corrector_order"), whole(1, 8)),
        **dict.fromkeys(("tau_func", "solver_p"), NULL),
        **dict.fromkeys(
            (
                *("beta_schedule", "prediction_type", "timestep_spacing", "timestep_type", "solver_type", "final_sigmas_type"),
                *("interpolation_type", "time_shift_type"),
            ),
            NAME,
        ),
        "algorithm_type": WORD,
        **dict.fromkeys(
            (
                *("clip_sample", "set_alpha_to_one", "skip_prk_steps", "thresholding", "rescale_betas_zero_snr", "euler_at_final"),
                *("lower_order_final", "predict_x0", "use_beta_sigmas", "use_dynamic_shifting", "use_exponential_sigmas"),
                *("use_flow_sigmas", "use_karras_sigmas", "use_lu_lambdas"),
            ),
            FLAG,
        ),
    },
)  # fmt: skip

FLOW = replace(
    SCHEDULER,
    classes=("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
    settings={
        **SCHEDULER.settings,
        **dict.fromkeys(("shift", "base_shift", "max_shift"), optional(number(1e-3, 100))),
        "shift_terminal": optional(number(0, 0.99)),
        **dict.fromkeys(("base_image_seq_len", "max_image_seq_len"), whole(1, 1 << 20)),
        **dict.fromkeys(("invert_sigmas", "stochastic_sampling"), FLAG),
    },
)
"""A flow's."""


def check_flow(config: Config) -> tuple[str, ...]:
    """Whether a flow is walked from noise to picture; notes.

    Raises:
        InconclusiveError: the other way round.
        BdauditError: numbers of tokens that give no line.
    """
    if config.get("invert_sigmas"):
        raise InconclusiveError("scheduler: invert_sigmas is set; a flow that is walked from picture to noise is not supported")
    if config.get("use_dynamic_shifting") and config.get("max_image_seq_len", 4096) == config.get("base_image_seq_len", 256):
        raise BdauditError("scheduler: base_image_seq_len and max_image_seq_len are equal, so that no shift is between them")
    named = [key for key in ("stochastic_sampling", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas") if config.get(key)]
    return (f"scheduler: {named[0]} is on; pictures are drawn by plain Euler steps instead",) if named else ()


_FEW_STEPS = ("LCMScheduler", "TCDScheduler")


def few_steps(config: Config) -> bool:
    """Whether the scheduler is that of a model distilled to a few steps without guidance: LCM's (2310.04378), TCD's (Hyper-SD), or Euler's
    with the trailing timesteps of Turbo (2311.17042) and Lightning (2402.13929), which models with a zero terminal SNR or v have too."""
    name = config.get("_class_name")
    trailing = name in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler") and config.get("timestep_spacing") == "trailing"
    plain = config.get("prediction_type", "epsilon") == "epsilon" and not config.get("rescale_betas_zero_snr")
    return name in _FEW_STEPS or (trailing and plain)
