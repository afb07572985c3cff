"""FID's and KID's usual feature extractor, where it is at hand: torch-fidelity's Inception with one known weights file.

The file is a pickle that a code host serves: it is opened only if its SHA-256 is the pinned one, and never downloaded.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bdaudit.records import NotMeasured
from bdaudit.untrusted.open_file import sha256

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_NAMES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
_BATCH = 32


class Inception:
    """Pictures → 2,048 features of Inception-v3's last pooling."""

    name = f"Inception-v3 (torch-fidelity, weights {SHA256[:8]})"
    gamma = None

    def __init__(self, weights: Path, device: torch.device) -> None:
        """Load ``weights``, whose digest was checked."""
        from torchmetrics.image.fid import NoTrainInceptionV3

        self._net: Any = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights)).to(device)
        self._device = device

    @torch.no_grad()
    def image_features(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in 0–1 → (N, 2048), float32 on the CPU; rounded to 8 bits, as the network's users do."""
        parts = [self._net((part * 255).round().byte().to(self._device)) for part in torch.split(pictures, _BATCH)]
        return torch.cat(parts).float().cpu()


def load_inception(device: torch.device, folder: Path | None = None) -> Inception | NotMeasured:
    """The extractor, or why it is not used; ``folder`` is torch.hub's checkpoint folder unless given."""
    found = find_inception(folder)
    return found if isinstance(found, NotMeasured) else Inception(found, device)


def find_inception(folder: Path | None = None) -> Path | NotMeasured:
    """The known weights file, its digest checked, or why there is none; ``folder`` as above."""
    if find_spec("torch_fidelity") is None:
        return NotMeasured(reason="torch-fidelity is not installed")
    folder = folder or Path(torch.hub.get_dir()) / "checkpoints"
    found = [folder / name for name in _NAMES if (folder / name).is_file()]
    if not found:
        return NotMeasured(reason=f"{_NAMES[0]} is not in {folder}")
    if sha256(found[0], str(found[0])) != SHA256:
        return NotMeasured(reason=f"{found[0]} is not the known file (its SHA-256 differs), and was not opened")
    return found[0]
