"""Learned embeddings (textual inversion, 2208.01618): a file of a few vectors, each an entry of the vocabulary for a block's length.

Every layout in use is read: one tensor under the token's own name (diffusers), ``emb_params`` (A1111, kohya), ``clip_l`` and ``clip_g``
(SDXL). Several vectors are several entries, ``<toy> <toy>_1``, as diffusers names them and writes them out in a prompt.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError, UsageError
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import Tokenizer, content_ids, without_cache
from bdaudit.tensor_file import open_tensors
from bdaudit.untrusted.inspect import File
from bdaudit.untrusted.rules import PICKLE_SUFFIXES
from bdaudit.untrusted.safetensors_header import TensorInfo
from bdaudit.untrusted.tree import shown

LARGEST = 16 << 20
"""Bytes of a file; those in use have up to half a megabyte."""
MOST_VECTORS = 75
"""As many as a prompt holds; tools cut what is more in their own ways."""
LONGEST_TOKEN = 100
"""Characters."""
SUFFIX = ".safetensors"
_UNNAMED = ("emb_params", "*")
"""What a tensor is called whose token is the file's name."""
_TOWERS = ("clip_l", "clip_g")
"""The first and second text encoder of SDXL."""


@dataclass(frozen=True)
class Embedding:
    """One file: its token, and the vectors for each text encoder, (n, width) in float32."""

    file: File
    token: str
    """In lower case, as CLIP's tokenizers read every text: diffusers writes out several vectors of no other."""
    vectors: Mapping[str, Tensor]
    """By ``clip_l`` and ``clip_g``; of a family with one text encoder under no name."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the entries, the token first."""
        count = len(next(iter(self.vectors.values())))
        return (self.token, *(f"{self.token}_{i}" for i in range(1, count)))

    @property
    def key(self) -> str:
        """What names it in the key of a run's state, and in the digest of what was audited."""
        return f"{self.file.sha256}={self.token}"


def read_embedding(path: Path, token: str) -> Embedding:
    """Inspect and read a file; ``token`` is what prompts call it, the file's own name for it where that is empty.

    Raises:
        UsageError: not a ``.safetensors``, or a token that cannot be one.
        RefusedError: a pickle, by its name or under that of safetensors.
        BdauditError: damaged, not finite, or of shapes that are no vectors.
        InconclusiveError: no embedding, several, or more vectors than a prompt holds.
    """
    where = shown(path)
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise RefusedError([f"--embedding {where}: a pickle is never opened; get the embedding as {SUFFIX}"])
    if path.suffix != SUFFIX:
        raise UsageError(f"--embedding {where}: expected a {SUFFIX} file")
    with open_tensors(path, where, error=BdauditError) as file:
        if file.size > LARGEST:
            raise BdauditError(f"{where} has {file.size:,} bytes; at most {LARGEST:,} are read of an embedding")
        stored = _stored(file.header.tensors, where)
        tensors, digest = file.load()
        size = file.size
    vectors = {tower: _vectors(tensors[name], name, where) for tower, name in stored.items()}
    if len({len(each) for each in vectors.values()}) > 1:
        raise BdauditError(f"{where} has {' and '.join(str(len(each)) for each in vectors.values())} vectors for two text encoders")
    own = stored.get("", _UNNAMED[0])
    called = token or (path.stem if own in _UNNAMED else own)
    return Embedding(File(str(path), size, digest), _token(called, where).lower(), vectors)


def _stored(tensors: Mapping[str, TensorInfo], where: str) -> dict[str, str]:
    """Text encoder → tensor; raises ``InconclusiveError`` for what is no one embedding."""
    names = set(tensors)
    if names and names <= set(_TOWERS):
        return {name: name for name in _TOWERS if name in names}
    if len(names) == 1:
        return {"": next(iter(names))}
    said = f"{where} holds {len(names)} tensors" + (f", {shown(min(names))} among them" if names else "")
    raise InconclusiveError(f"{said}; expected an embedding: one tensor of its own name, emb_params, or clip_l and clip_g")


def _vectors(tensor: Tensor, name: str, where: str) -> Tensor:
    said = f"{where}: {shown(name)} is {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
    if not tensor.is_floating_point() or tensor.ndim not in (1, 2) or tensor.numel() == 0:
        raise BdauditError(f"{said}; expected vectors, one a row, in floating point")
    rows = tensor.float().reshape(-1, tensor.shape[-1])
    if len(rows) > MOST_VECTORS:
        raise InconclusiveError(f"{said}; of more than {MOST_VECTORS} vectors tools cut off what no prompt holds, each in its own way")
    if not bool(torch.isfinite(rows).all()):
        raise BdauditError(f"{where}: {shown(name)} holds NaN or infinity; the embedding is damaged")
    return rows


def _token(text: str, where: str) -> str:
    plain = 0 < len(text) <= LONGEST_TOKEN and text.isprintable() and text == text.strip()
    if not plain:
        said = f"--embedding {where}: {shown(text)} cannot stand in a prompt as one word"
        raise UsageError(f"{said}; say {where}=TOKEN, with a token of at most {LONGEST_TOKEN} printable characters")
    return text


def grown(tokenizer: Tokenizer, embeddings: Sequence[Embedding]) -> Tokenizer:
    """A copy of ``tokenizer`` that knows the embeddings' entries, as diffusers adds them.

    Raises:
        UsageError: it has one of them already.
    """
    larger = copy.deepcopy(tokenizer)
    for embedding in embeddings:
        taken = [name for name in embedding.names if name in larger.get_vocab()]
        if taken:
            said = f"--embedding {shown(embedding.file.path)}: the tokenizer has an entry {shown(taken[0])} already"
            raise UsageError(f"{said}; name another with {shown(embedding.file.path)}=TOKEN")
        larger.add_tokens(list(embedding.names))
        if len(content_ids(larger, embedding.token)) != len(embedding.names):
            said = f"--embedding {shown(embedding.file.path)}: the tokenizer does not read {shown(embedding.token)} as its entries"
            raise UsageError(f"{said}; name another with {shown(embedding.file.path)}=TOKEN")
    return without_cache(larger)


@contextmanager
def learned(suspect: Suspect, embeddings: Sequence[Embedding]) -> Iterator[None]:
    """The embeddings are in the vocabulary for the block's length; after it tokenizers and tables are the ones from before.

    Raises:
        UsageError: as ``grown``.
        BdauditError: vectors of another width than the text encoder's.
        InconclusiveError: they are for another number of text encoders, or one is no CLIP.
    """
    text, tables = suspect.text, [reader.encoder.get_input_embeddings() for reader in suspect.text.readers]
    before = [table.weight for table in tables]
    try:
        learn(suspect, embeddings)
        yield
    finally:
        suspect.text = text
        for table, weight in zip(tables, before, strict=True):
            _hold(table, weight)


def learn(suspect: Suspect, embeddings: Sequence[Embedding]) -> None:
    """Put the embeddings into the vocabulary, for good; raises as ``learned``."""
    if not embeddings:
        return
    others = [name for reader in suspect.text.readers if not (name := type(reader.encoder).__name__).startswith("CLIP")]
    if others:
        said = f"--embedding {shown(embeddings[0].file.path)}: learned embeddings are of CLIP's vocabulary, and {others[0]} reads here too"
        raise InconclusiveError(f"{said}; those of Stable Diffusion 1.x, 2.x and XL are supported")
    tables = [reader.encoder.get_input_embeddings() for reader in suspect.text.readers]
    rows = [_rows(embedding, [table.weight.shape[1] for table in tables]) for embedding in embeddings]
    tokenizers = [grown(reader.tokenizer, embeddings) for reader in suspect.text.readers]
    for i, (table, tokenizer) in enumerate(zip(tables, tokenizers, strict=True)):
        weight, vocabulary = table.weight.detach(), tokenizer.get_vocab()
        places = [vocabulary[name] for embedding in embeddings for name in embedding.names]
        larger = weight.new_zeros(max(len(weight), 1 + max(places)), weight.shape[1])
        larger[: len(weight)] = weight
        larger[places] = torch.cat([each[i] for each in rows]).to(weight.device, weight.dtype)
        _hold(table, nn.Parameter(larger, requires_grad=table.weight.requires_grad))
    suspect.text = suspect.text.with_tokenizers(tokenizers)


def _hold(table: nn.Embedding, weight: nn.Parameter) -> None:
    table.weight, table.num_embeddings = weight, len(weight)


def _rows(embedding: Embedding, widths: Sequence[int]) -> list[Tensor]:
    """For each text encoder, by its width."""
    where, given = shown(embedding.file.path), embedding.vectors
    if len(given) != len(widths) and not (len(widths) == 1 and len(given) == 1):
        wanted = "clip_l and clip_g" if len(widths) > 1 else "one tensor"
        said = f"{where} has vectors for {' and '.join(given) or 'one text encoder'}, and this model reads with {len(widths)} text encoders"
        raise InconclusiveError(f"{said}; the embedding is for another family of models, expected {wanted}")
    rows = [given[tower] for tower in _TOWERS if tower in given] or list(given.values())
    for each, width in zip(rows, widths, strict=True):
        if each.shape[1] != width:
            said = f"{where}: vectors of {each.shape[1]} numbers for a text encoder of {width}"
            raise BdauditError(f"{said}; the embedding is for another model")
    return rows
