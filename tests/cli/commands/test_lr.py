"""twolayer lr: the largest stable learning rate, and where the config's stands."""

from __future__ import annotations

import csv
import io

from tests.helpers.processes import Run


def test_lr_prints_the_largest_stable_step_and_where_the_configs_stands(twolayer: Run) -> None:
    done = twolayer("lr", "scratch")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["what", "lambda", "2 / lambda", "1 / lambda", "lr"]
    rows = list(csv.DictReader(io.StringIO(twolayer("lr", "scratch", "--format", "csv").stdout)))
    values = {row["what"]: float(row["value"]) for row in rows}
    assert values["2 / lambda"] == 2 / values["lambda"] == 2 * values["1 / lambda"]
    assert values["lr"] == 1e-4
    assert lines[-1].endswith(f"{1e-4 / values['2 / lambda']:.3g} times the limit")
