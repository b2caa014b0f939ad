"""twolayer schema: the schema that the bundled configs name."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.processes import without_torch
from twolayer.config.bundled import bundled
from twolayer.config.schema import schema


def test_schema_is_the_one_that_the_bundled_configs_name(tmp_path: Path) -> None:
    done = without_torch("schema", cwd=tmp_path)
    assert json.loads(done.stdout) == schema()
    for path in bundled().values():
        first = path.read_text().splitlines()[0]
        assert first == "# yaml-language-server: $schema=twolayer.schema.json"
        # As JSON: a limit is 0 or 0.0, by pydantic's version.
        assert json.loads((path.parent / "twolayer.schema.json").read_text()) == json.loads(done.stdout)
