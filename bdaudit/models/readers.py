"""Several readers of different kinds as one text side: towers of CLIP, T5, language models, each with its own tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from bdaudit.errors import BdauditError
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.text import Ids, Reader, Share
from bdaudit.models.tokens import Framed, Tokenizer, aligned, content_mask, frame_of, own_positions, row_of, stretched, token_ids

Run = Callable[[Reader, Tensor, Tensor], tuple[Tensor | None, Tensor | None]]
"""A reader, ids and the mask of what is no padding, (B, n) each → states (B, l, d) and a pooled vector (B, e), where it gives them."""
BLOCK = 32
"""Positions that a text is read in multiples of, where its padding is left out: texts of about one length are then read alike."""


@dataclass(frozen=True)
class Voice:
    """One reader of several."""

    name: str
    """Of its encoder's folder."""
    reader: Reader
    run: Run
    share: Share | None
    """Of the states; None where its pooled vector alone is heard."""

    @property
    def start(self) -> int:
        """Where its states begin."""
        return 0 if self.share is None else self.share.positions.start or 0

    def attended(self, ids: Tensor) -> Tensor:
        """What is no padding behind a text: int64 (B, n)."""
        left = (ids != self.reader.tokenizer.pad_token_id).int().flip(1).cumsum(1).flip(1)
        mask: Tensor = (left > 0).long()
        return mask

    def words(self, ids: Tensor) -> Tensor:
        """Positions of its states that hold words: bool (B, l)."""
        tokenizer = self.reader.tokenizer
        if not isinstance(tokenizer, Framed):
            return content_mask(ids, tokenizer.eos_token_id)
        around, at = frame_of(tokenizer), torch.arange(ids.shape[1], device=ids.device)
        ends = self.attended(ids).sum(1, keepdim=True) - len(around.after)
        return ((at >= len(around.before)) & (at < ends))[:, around.dropped :]


@dataclass(frozen=True)
class Voices:
    """All readers of a family; what a denoiser hears is as long and as wide as ``shape``, zeros where no reader has a share."""

    voices: tuple[Voice, ...]
    """In the order in which their pooled vectors stand."""
    main: Reader
    alike: tuple[Reader, ...]
    shape: tuple[int, int]
    padding: int | None = None
    """How many positions of padding behind a text the denoiser looks at; None where it looks at all."""
    crowds: bool = False
    """Not known of states that hear all others, nor of joint attention."""

    @property
    def readers(self) -> tuple[Reader, ...]:
        """All of them."""
        return tuple(voice.reader for voice in self.voices)

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The encoders by the names of their folders."""
        return {voice.name: voice.reader.encoder for voice in self.voices}

    @property
    def _heard(self) -> tuple[tuple[int, Voice, Share], ...]:
        """Those with a share in the states, and which they are."""
        return tuple((i, voice, voice.share) for i, voice in enumerate(self.voices) if voice.share is not None)

    @property
    def shares(self) -> tuple[Share, ...]:
        """Of those that have one."""
        return tuple(share for _, _, share in self._heard)

    def with_tokenizers(self, tokenizers: Sequence[Tokenizer]) -> Voices:
        """The same readers, each with another tokenizer."""
        own = [(reader, replace(reader, tokenizer=each)) for reader, each in zip(self.readers, tokenizers, strict=True)]

        def changed(reader: Reader) -> Reader:
            return next(new for old, new in own if old is reader)

        voices = tuple(replace(voice, reader=changed(voice.reader)) for voice in self.voices)
        return replace(self, voices=voices, main=changed(self.main), alike=tuple(map(changed, self.alike)))

    def ids(self, texts: Sequence[str]) -> Ids:
        """Padded and cut by each tokenizer, as the pipeline has it."""
        return Ids(tuple(token_ids(reader.tokenizer, texts) for reader in self.readers))

    def spliced(self, before: Sequence[int], entries: Sequence[int], after: Sequence[int]) -> Ids:
        """Entries to readers with the main one's vocabulary, what they decode to to the others."""
        whole = [*before, *entries, *after]
        text = self.main.tokenizer.decode(whole, clean_up_tokenization_spaces=False)
        alike = [any(reader is one for one in self.alike) for reader in self.readers]
        rows = [
            torch.tensor([row_of(reader.tokenizer, whole)]) if same else token_ids(reader.tokenizer, [text])
            for reader, same in zip(self.readers, alike, strict=True)
        ]
        return Ids(tuple(rows))

    def bare(self, rows: Sequence[Sequence[int]]) -> Ids:
        """Padded like all others."""
        return Ids.cat([self.spliced([], row, []) for row in rows])

    def encode(self, ids: Ids) -> Conditioning:
        """Each reader's states in its share, pooled vectors one after the other."""
        said = [voice.run(voice.reader, own, voice.attended(own)) for voice, own in zip(self.voices, ids.by_reader, strict=True)]
        pooled = [vector for _, vector in said if vector is not None]
        return Conditioning(self._put([states for states, _ in said]), self._mask(ids), torch.cat(pooled, -1) if pooled else None)

    def _put(self, said: Sequence[Tensor | None]) -> Tensor:
        parts = [(share, states) for i, _, share in self._heard if (states := said[i]) is not None]
        if len(parts) == 1 and parts[0][1].shape[1:] == self.shape:
            return parts[0][1]
        whole = parts[0][1].new_zeros(len(parts[0][1]), *self.shape)
        for share, states in parts:
            whole[:, share.positions, share.channels] = states
        return whole

    def _mask(self, ids: Ids) -> Tensor | None:
        if self.padding is None:
            return None
        ((i, voice, _),) = self._heard
        attended = voice.attended(ids.by_reader[i])
        heard = torch.arange(attended.shape[1], device=attended.device) < attended.sum(1, keepdim=True) + self.padding
        return heard.long()[:, frame_of(voice.reader.tokenizer).dropped :]

    def own_positions(self, clean: str, changed: str) -> list[int]:
        """Of every reader that is heard token by token."""
        each = ((voice.start, own_positions(voice.reader.tokenizer, clean, changed)) for _, voice, _ in self._heard)
        return sorted({start + i for start, own in each for i in own})

    def aligned(self, clean: str, changed: str) -> tuple[list[tuple[int, int]], list[int]]:
        """By each tokenizer's own ids; readers that stand side by side are aligned once."""
        pairs, own = list[tuple[int, int]](), list[int]()
        for start, voice in {voice.start: voice for _, voice, _ in reversed(self._heard)}.items():
            both, mine = aligned(voice.reader.tokenizer, clean, changed)
            pairs += [(start + a, start + b) for a, b in both]
            own += [start + i for i in mine]
        return pairs, own

    def words(self, ids: Ids) -> Tensor:
        """Of any reader."""
        found = torch.zeros(len(ids), self.shape[0], dtype=torch.bool, device=ids.by_reader[0].device)
        for i, voice, share in self._heard:
            found[:, share.positions] |= voice.words(ids.by_reader[i])
        return found

    def summary(self, heard: Conditioning) -> Tensor:
        """A CLIP's last state, the mean of others', whose states all hear every word, and the pooled vectors; each at length 1."""
        parts = [self._summed(voice, share, heard) for _, voice, share in self._heard]
        parts += [] if heard.pooled is None else [heard.pooled]
        return torch.cat([functional.normalize(part, dim=-1) for part in parts], dim=-1) if len(parts) > 1 else parts[0]

    def _summed(self, voice: Voice, share: Share, heard: Conditioning) -> Tensor:
        states = share.of(heard.states)
        if not isinstance(voice.reader.tokenizer, Framed):
            return states[:, -1]
        if heard.mask is None:
            return states.mean(1)
        weight = heard.mask[:, share.positions, None].to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1).clamp_min(1)

    def stretched(self, clean: Ids, changed: Ids, heard: Conditioning) -> Conditioning:
        """Each reader's states by its own ids; the pooled vectors are the clean text's."""
        said: list[Tensor | None] = [None] * len(self.voices)
        for i, voice, share in self._heard:
            rows = (ids.by_reader[i][:, frame_of(voice.reader.tokenizer).dropped :] for ids in (clean, changed))
            said[i] = stretched(share.of(heard.states), *rows)
        return Conditioning(self._put(said), self._mask(changed), heard.pooled)

    def unconditional(self) -> Conditioning:
        """The empty prompt."""
        return self.encode(self.ids([""]).to(next(self.main.encoder.parameters()).device))


def last_states(reader: Reader, ids: Tensor, mask: Tensor) -> tuple[Tensor, None]:
    """Padding is heard like words."""
    return reader.encoder(input_ids=ids)[0], None


def masked_states(reader: Reader, ids: Tensor, mask: Tensor) -> tuple[Tensor, None]:
    """Padding is not heard."""
    return reader.encoder(input_ids=ids, attention_mask=mask)[0], None


def states_in_use(reader: Reader, ids: Tensor, mask: Tensor) -> tuple[Tensor, None]:
    """The same as far as the longest of the texts goes; zeros behind, where nobody looks. Most of what a pipeline pads to is padding, and
    costs a reader as much as words."""
    used = min(ids.shape[1], -(-int(mask.sum(1).max()) // BLOCK) * BLOCK)
    states, _ = masked_states(reader, ids[:, :used], mask[:, :used])
    return functional.pad(states, (0, 0, 0, ids.shape[1] - used)), None


def penultimate(reader: Reader, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The last states but one of a CLIP, and its projection."""
    out = reader.encoder(input_ids=ids, output_hidden_states=True)
    return out.hidden_states[-2], out.text_embeds


def before_the_last(reader: Reader, ids: Tensor, mask: Tensor) -> tuple[Tensor, None]:
    """The states of a language model before its last layer; padding is not heard."""
    return reader.encoder(input_ids=ids, attention_mask=mask.bool(), output_hidden_states=True).hidden_states[-2], None


def behind_layers(layers: Sequence[int]) -> Run:
    """The states behind several layers of a language model, one's numbers behind the other's; padding is not heard."""

    def run(reader: Reader, ids: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        told = {"attention_mask": mask, "output_hidden_states": True, "use_cache": False, "logits_to_keep": 1}
        states = reader.encoder(input_ids=ids, **told).hidden_states
        return torch.cat([states[layer] for layer in layers], dim=-1), None

    return run


def last_behind_prefix(reader: Reader, ids: Tensor, mask: Tensor) -> tuple[Tensor, None]:
    """The last states of a language model behind what the denoiser never hears, noughts for padding; texts as long as the longest."""
    longest, dropped = int(mask.sum(1).max()), frame_of(reader.tokenizer).dropped
    told = {"attention_mask": mask[:, :longest], "output_hidden_states": True, "logits_to_keep": 1}
    states = reader.encoder(input_ids=ids[:, :longest], **told).hidden_states[-1] * mask[:, :longest, None].to(reader.encoder.dtype)
    return functional.pad(states[:, dropped:], (0, 0, 0, ids.shape[1] - longest)), None


def pooler(reader: Reader, ids: Tensor, mask: Tensor) -> tuple[None, Tensor]:
    """A CLIP's last state at the end of the text alone."""
    return None, reader.encoder(input_ids=ids).pooler_output


def check_ids(tokenizer: Framed, encoder: torch.nn.Module, name: str) -> None:
    """Raises ``BdauditError`` where the tokenizer gives an id that the encoder's table has not, or has no padding."""
    known = len(encoder.get_input_embeddings().weight)  # type: ignore[operator]
    around = frame_of(tokenizer)
    ids = [*tokenizer.get_vocab().values(), *around.before, *around.after, tokenizer.pad_token_id]
    if not all(type(i) is int and 0 <= i < known for i in ids):
        raise BdauditError(f"{name} gives ids that its text encoder, with {known} embeddings, has not; they do not belong together")
