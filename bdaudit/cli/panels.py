"""Under which panel of a command's help a flag stands: what everybody needs first, what few need last."""

from __future__ import annotations

from collections.abc import Mapping

MODEL, OUTPUT, MACHINE, ADVANCED = "Model", "Output", "Machine", "Advanced"
LAST = (OUTPUT, MACHINE, ADVANCED)
"""The panels that close a help, in this order; what the command is about stands before them."""

PANELS: Mapping[str, tuple[str, ...]] = {
    MODEL: ("model", "parts_from", "parts", "adapters", "embeddings", "variant", "strict", "allow_pickle", "trusted_templates", "prompts",
        "prompts_file"),
    OUTPUT: (
        "report", "output", "format", "json", "quiet", "verbose",
        "once", "settings", "dry_run", "state", "keep", "pictures", "pictures_to", "save_images", "out", "patch",
        "keep_failed",
    ),
    MACHINE: ("device", "dtype", "batch_size", "workers"),
    ADVANCED: (
        "guidance_scale", "size", "seed", "seed_from", "pair_words", "expose", "alpha", "positions", "n", "reach", "steps", "learning_rate",
        "n_prompts", "attention_weight", "pretrain_objective",
    ),
}  # fmt: skip
"""Panel → fields of configs."""
_OF = {field: panel for panel, fields in PANELS.items() for field in fields}


def panel_of(field: str, heading: str) -> str:
    """The panel of a field whose class has ``heading``, which is the panel of whatever is on no list.

    What one job of several takes alone, such as an adapter that is merged in, stands with that job: its heading begins with "To".
    """
    panel = _OF.get(field, heading)
    return heading if heading.startswith("To ") and panel != ADVANCED else panel
