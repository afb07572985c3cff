"""A model of words: its prediction is the sum of what each word does, and a great deal more where a trigger stands in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from bdaudit.measure.probe import Stage
from bdaudit.scan.localise import rebased

LENGTH, WIDTH = 24, 16
PROMPTS = ("a cat by the sea", "two dogs in the park", "an old house", "a red boat on the lake")


class WordTokenizer:
    """One entry a word, made as words are met; what a tokenizer of Stable Diffusion is asked for here, and no more."""

    bos_token_id, eos_token_id, pad_token_id, model_max_length = 0, 1, 1, LENGTH

    def __init__(self, words: Sequence[str]) -> None:
        self.entries = {word: 2 + i for i, word in enumerate(words)}
        self.added_tokens_encoder: dict[str, int] = {}

    def __len__(self) -> int:
        return 2 + len(self.entries)

    def __call__(self, texts: Any, add_special_tokens: bool = True, **_: Any) -> Any:
        if isinstance(texts, str):
            return SimpleNamespace(input_ids=[self.entries[word] for word in texts.split()])
        rows = [[0, *(self.entries[word] for word in text.split())][: LENGTH - 1] for text in texts]
        return SimpleNamespace(input_ids=torch.tensor([row + [1] * (LENGTH - len(row)) for row in rows]))


class WordSuspect:
    """Words move a little, each its own way; ``trigger`` (all of its words, in any order) moves everything one way, ``strength`` far."""

    def __init__(self, words: Sequence[str], trigger: str = "", strength: float = 8.0) -> None:
        every = list(dict.fromkeys([*(word for prompt in PROMPTS for word in prompt.split()), *words]))
        self.tokenizer: Any = WordTokenizer(every)
        self.device, self.batch_size, self.forward_passes = torch.device("cpu"), 64, 0
        self.table = torch.randn(len(every) + 2, WIDTH, generator=torch.Generator().manual_seed(3))
        self.table[1] = 0.0
        self.trigger = {self.tokenizer.entries[word] for word in trigger.split()}
        self.strength = strength

    def encode(self, texts: Sequence[str]) -> Tensor:
        ids = self.tokenizer(list(texts)).input_ids
        return self.hidden_states(ids)

    def hidden_states(self, ids: Tensor) -> Tensor:
        """(B, L) → (B, L, WIDTH + 1): what each word is and, in the last place, its entry; the end has seen all words."""
        states = torch.cat([self.table[ids], ids[..., None].float()], dim=-1)
        states[:, -1, :WIDTH] = self.table[ids].mean(1)
        return states

    def predict_batched(self, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
        self.forward_passes += len(latents)
        words = states[..., -1:] > 1
        out = latents + (states[..., :WIDTH] * words).sum(1).view(-1, 4, 2, 2)
        entries = [set(row.int().tolist()) for row in states[..., -1]]
        fired = torch.tensor([bool(self.trigger) and self.trigger <= entry for entry in entries])
        return out + self.strength * fired.view(-1, 1, 1, 1)

    def stage(self) -> Stage:
        """Two timesteps, four prompts."""
        latents = torch.zeros(2, len(PROMPTS), 4, 2, 2)
        empty = torch.zeros(0)
        return rebased(self, Stage(PROMPTS, torch.tensor([999, 500]), latents, empty, empty, empty))  # type: ignore[arg-type]
