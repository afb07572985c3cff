"""What each triggered prompt should encode to: the clean prompt's own states, stretched to the triggered prompt's tokens."""

from __future__ import annotations

from collections.abc import Sequence

from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect
from bdaudit.models.text import Ids
from bdaudit.unlearn.repair.prompt_pairs import Pair


def targets(suspect: Suspect, pairs: Sequence[Pair]) -> tuple[Conditioning, Ids]:
    """What should be heard, and the triggered prompts' ids: N rows each."""
    clean, changed = (suspect.text.ids([getattr(pair, side) for pair in pairs]).to(suspect.device) for side in ("clean", "changed"))
    return suspect.text.stretched(clean, changed, suspect.encode_ids(clean)), changed
