"""The report's section on weights: rows and layers that stand apart, in every part that hears the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import text_of
from bdaudit.records import WeightApart, Weights
from bdaudit.scan.weights.layers import layers_apart
from bdaudit.scan.weights.rows import LARGEST, RowApart, rows_apart


def weights(suspect: Suspect, reference: Suspect | None = None) -> Weights:
    """What stands apart in ``suspect``'s weights, adapters and learned embeddings taken out, without a pass.

    A part whose shapes are not the ``reference``'s is held against nothing.
    """
    found, looked_at, notes = list[WeightApart](), dict[str, int](), list[str]()
    for part, module in suspect.heeding.items():
        reader = next((each for each in suspect.text.readers if each.encoder is module), None)
        mine = _without_table(module)
        theirs = None if reference is None else _like(mine, reference.heeding.get(part))
        if theirs is None and reference is not None:
            notes.append(f"the {part} beside the reference's, which is of another shape")
        matrices = layers_apart(mine, theirs)
        found += [WeightApart(part=part, where=e.tensor, measure=e.measure, value=e.value, score=e.score) for e in matrices]
        looked_at[part] = sum(tensor.ndim >= 2 for tensor in mine.values())
        if reader is None:
            continue
        table = _table(module)[: len(reader.tokenizer)]  # what lies beyond pads the table, and no text reaches it
        other = None if theirs is None or reference is None else _table(reference.heeding[part])
        found += [_row(part, reader.tokenizer, each) for each in rows_apart(table, other)]
        looked_at[f"{part}, rows"] = len(table)
        if len(table) > LARGEST:
            notes.append(f"neighbours in the {part}'s table, which has more than {LARGEST:,} rows")
    return Weights(apart=tuple(found), looked_at=looked_at, against_reference=reference is not None, not_looked_at=tuple(notes))


def _without_table(module: Any) -> dict[str, Tensor]:
    """The parameters but an encoder's embedding table, whose rows are looked at one by one."""
    table = module.get_input_embeddings().weight if hasattr(module, "get_input_embeddings") else None
    return {name: parameter for name, parameter in module.named_parameters() if parameter is not table}


def _like(mine: Mapping[str, Tensor], module: Any) -> dict[str, Tensor] | None:
    """The same parameters of the reference's part; None where there is no such part, or it is of another shape."""
    theirs = {} if module is None else _without_table(module)
    return theirs if {n: p.shape for n, p in mine.items()} == {n: p.shape for n, p in theirs.items()} else None


def _table(module: Any) -> Tensor:
    table: Tensor = module.get_input_embeddings().weight
    return table.detach()


def _row(part: str, tokenizer: Any, each: RowApart) -> WeightApart:
    other = "" if each.other < 0 else text_of(tokenizer, [each.other])
    return WeightApart(
        part=part, where=f"row {each.row}", text=text_of(tokenizer, [each.row]), beside=other, measure=each.measure, value=each.value,
        score=each.score,
    )  # fmt: skip
