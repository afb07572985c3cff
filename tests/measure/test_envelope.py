"""The part of a report that all verbs share."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from bdaudit.config import Acceptance, ScanConfig, VerifyConfig
from bdaudit.measure.envelope import LIMITATIONS, envelope, settings
from bdaudit.models.suspect import Suspect
from bdaudit.records import Environment, ModelRecord, NotMeasured, TensorDigest
from bdaudit.untrusted.inspect import inspect
from tests.small import hashes
from tests.untrusted.cached import COMMIT, lay_out


def test_what_was_opened_is_listed_with_its_hashes(tiny_model: Path, tiny_suspect: Suspect) -> None:
    found = envelope("scan", ScanConfig(model=tiny_model, batch_size=32), inspect(tiny_model), tiny_suspect)
    model, environment = found["model"], found["environment"]
    assert isinstance(model, ModelRecord)
    assert {f.path: f.sha256 for f in model.files} == hashes(tiny_model)
    assert isinstance(environment, Environment)
    assert (environment.device, environment.dtype) == ("cpu", "float32")
    assert (environment.batch_size_asked, environment.batch_size_used) == (32, 64)
    assert datetime.fromisoformat(found["created_at"]).utcoffset() is not None
    assert found["limitations"] == LIMITATIONS


def test_a_snapshot_of_the_hub_s_cache_has_its_id_and_commit(tiny_model: Path, tmp_path: Path) -> None:
    snapshot = lay_out(tiny_model, tmp_path)
    model, plain = (envelope("scan", ScanConfig(model=path), inspect(path))["model"] for path in (snapshot, tiny_model))
    assert (model.path, model.model_id, model.commit) == (str(snapshot), "org/name", COMMIT)
    assert (plain.model_id, plain.commit) == ("", "")
    assert (model.digest, model.tensors) == (plain.digest, plain.tensors)
    assert f"the hub's cache has it as org/name, commit {COMMIT}" in model.notes


def test_tensors_have_digests_where_they_were_read_before_they_were_loaded(tiny_model: Path) -> None:
    inspection = inspect(tiny_model)
    assert inspection.tensors is not None
    held = envelope("scan", ScanConfig(model=tiny_model), inspection)["model"].tensors
    assert held == TensorDigest(exact=inspection.tensors.exact, float16=inspection.tensors.float16)
    pickled = envelope("scan", ScanConfig(model=tiny_model), replace(inspection, tensors=None))["model"].tensors
    assert isinstance(pickled, NotMeasured)
    assert "pickle" in pickled.reason


def test_what_is_not_known_says_why(tiny_model: Path) -> None:
    found = envelope("scan", ScanConfig(model=tiny_model))
    assert isinstance(found["model"], NotMeasured)
    assert isinstance(found["environment"], NotMeasured)
    assert found["environment"].reason


def test_every_setting_is_there_and_json_can_hold_it() -> None:
    config = VerifyConfig(model=Path("m"), triggers=("ȏ",), swaps=(("a", "b"),), seed=3)
    found = json.loads(json.dumps(settings(config)))
    assert found["model"] == "m"
    assert found["swaps"] == [["a", "b"]]
    assert found["reference"] == "not set"
    entry = {"model": "*", "token_ids": (3,), "reason": "ours", "expires": "2027-01-31", "effect": 2.0}
    scan = ScanConfig(model=Path("m"), accept=(Acceptance(**entry),))  # type: ignore[arg-type]
    assert json.loads(json.dumps(settings(scan)))["accept"] == [entry | {"token_ids": [3], "reader_ids": {}}]
    assert found.keys() == {name for name in VerifyConfig.__dataclass_fields__}
