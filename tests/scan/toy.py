"""A model of words: its prediction is the sum of what each word does, and a great deal more where a trigger stands in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from bdaudit.measure.draws import Draws, draws_on
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.text import Ids

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
            return SimpleNamespace(input_ids=self._entries(texts))
        rows = [[0, *self._entries(text)][: LENGTH - 1] for text in texts]
        return SimpleNamespace(input_ids=torch.tensor([row + [1] * (LENGTH - len(row)) for row in rows]))

    def _entries(self, text: str) -> list[int]:
        """A comma stands by itself."""
        return [self.entries[word] for word in text.replace(",", " ,").split()]


class WordReader:
    """Reads words; the summary has seen all of them."""

    crowds = True

    def __init__(self, tokenizer: Any, table: Tensor) -> None:
        self.alike = self.readers = (tokenizer,)
        self.main = SimpleNamespace(tokenizer=tokenizer)
        self.table = table

    def ids(self, texts: Sequence[str]) -> Ids:
        return Ids((self.main.tokenizer(list(texts)).input_ids,))

    def spliced(self, before: Sequence[int], entries: Sequence[int], after: Sequence[int]) -> Ids:
        row = [0, *before, *entries, *after][: LENGTH - 1]
        return Ids((torch.tensor([row + [1] * (LENGTH - len(row))]),))

    def bare(self, rows: Sequence[Sequence[int]]) -> Ids:
        return Ids((torch.tensor([[0, *row, 1] for row in rows]),))

    def encode(self, ids: Ids) -> Conditioning:
        """States (B, L, WIDTH + 1): what each word is and, in the last place, its entry."""
        rows = ids.by_reader[0]
        states = torch.cat([self.table[rows], rows[..., None].float()], dim=-1)
        states[:, -1, :WIDTH] = self.table[rows].mean(1)
        return Conditioning(states)

    def words(self, ids: Ids) -> Tensor:
        return ids.by_reader[0] > 1

    def summary(self, heard: Conditioning) -> Tensor:
        return heard.states[:, -1]


class WordSuspect:
    """Words move a little, each its own way; ``trigger`` (all of its words, in any order) moves everything one way, ``strength`` far."""

    def __init__(self, words: Sequence[str], trigger: str = "", strength: float = 8.0) -> None:
        every = list(dict.fromkeys([*(word for prompt in PROMPTS for word in prompt.split()), *words, ","]))
        self.tokenizer: Any = WordTokenizer(every)
        self.device, self.batch_size, self.forward_passes = torch.device("cpu"), 64, 0
        table = torch.randn(len(every) + 2, WIDTH, generator=torch.Generator().manual_seed(3))
        table[1] = 0.0
        self.text = WordReader(self.tokenizer, table)
        self.trigger = {self.tokenizer.entries[word] for word in trigger.split()}
        self.strength = strength

    def encode(self, texts: Sequence[str]) -> Conditioning:
        return self.text.encode(self.text.ids(texts))

    def encode_ids(self, ids: Ids) -> Conditioning:
        return self.text.encode(ids)

    def unconditional(self) -> Conditioning:
        return self.encode([""])

    def predict_batched(self, latents: Tensor, t: Tensor, heard: Conditioning) -> Tensor:
        self.forward_passes += len(latents)
        states = heard.states
        words = states[..., -1:] > 1
        out = latents + (states[..., :WIDTH] * words).sum(1).view(-1, 4, 2, 2)
        entries = [set(row.int().tolist()) for row in states[..., -1]]
        fired = torch.tensor([bool(self.trigger) and self.trigger <= entry for entry in entries])
        return out + self.strength * fired.view(-1, 1, 1, 1)

    def draws(self) -> Draws:
        """Each prompt at two timesteps, the noisiest first: eight."""
        prompts, places = 2 * PROMPTS, ("prefix", "suffix", "middle", "comma", "clause", "prefix", "suffix", "middle")
        timesteps = torch.tensor([999, 999, 999, 999, 500, 500, 500, 500])
        latents = torch.zeros(len(prompts), 4, 2, 2)
        return draws_on(self, prompts, places, timesteps, latents, latents)  # type: ignore[arg-type]
