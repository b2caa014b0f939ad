"""A model file of version 0.1.0 predicts what it did: its encoding and its weights are read to the bit."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import polars as pl
from safetensors import safe_open

from tests.helpers.processes import Run
from twolayer.evaluation.predictor import load_model
from twolayer.tables.encoding import encode
from twolayer.tables.features import Encoding, Feature, Target

OLD = Path(__file__).parents[1] / "runs-0.1.0" / "table"
SIZES, FLOORS = (20.0, 100.0, 76.25, -3.5, 1e3, 0.1), ("low", "high", "low", "high", "low", "cellar")
# What the file says, read off it by eye.
MEANS, DEVIATIONS = (
    (76.10526315789474, 0.4473684210526316, 0.5526315789473685),
    (29.154569447474096, 0.49722220072871537, 0.49722220072871537),
)
PRICE = Target("price", 271.3565789473684, 101.44986906365745)


def test_the_columns_are_read_as_that_version_wrote_them() -> None:
    size = Feature("size", "size", "number", None, None, MEANS[0], DEVIATIONS[0])
    floors = [
        Feature(f"floor={name}", "floor", "category", name, None, mean, deviation)
        for name, mean, deviation in zip(("high", "low"), MEANS[1:], DEVIATIONS[1:], strict=True)
    ]
    kinds = {"size": "number", "floor": "category"}
    assert load_model(OLD).columns == Encoding((size, *floors), (PRICE,), None, kinds)  # type: ignore[arg-type]


def test_inputs_and_weights_are_those_of_the_file_to_the_bit() -> None:
    model = load_model(OLD)
    raw = np.array([[size, floor == "high", floor == "low"] for size, floor in zip(SIZES, FLOORS, strict=True)])
    x = encode(pl.DataFrame({"size": map(repr, SIZES), "floor": FLOORS}), model.columns, "n")
    assert x.tobytes() == ((raw - np.array(MEANS)) / np.array(DEVIATIONS)).tobytes()
    with safe_open(OLD / "model.safetensors", framework="np") as file:
        for name, tensor in (
            ("0.weight", model.w1),
            ("0.bias", model.b1),
            ("2.weight", model.w2),
            ("2.bias", model.b2),
        ):
            assert np.asarray(tensor).tobytes() == file.get_tensor(name).tobytes()


def test_its_predictions_are_those_of_its_weights_in_float64(tmp_path: Path, twolayer: Run) -> None:
    """Within the rounding of float32 alone: the bits of a product differ from CPU to CPU."""
    rows = "".join(f"{size},{floor}\n" for size, floor in zip(SIZES, FLOORS, strict=True))
    (tmp_path / "new.csv").write_text(f"size,floor\n{rows}")
    done = twolayer("predict", str(OLD), "new.csv")
    assert done.returncode == 0
    assert done.stderr == (
        "new.csv: column floor: 1 row has a category that the model does not know; it is treated as no category\n"
    )
    found = [float(row["price_predicted"]) for row in csv.DictReader(io.StringIO(done.stdout))]
    with safe_open(OLD / "model.safetensors", framework="np") as file:
        tensor = {name: file.get_tensor(name).astype("float64") for name in file.keys()}  # noqa: SIM118
    raw = np.array([[size, floor == "high", floor == "low"] for size, floor in zip(SIZES, FLOORS, strict=True)])
    hidden = np.maximum(0, (raw - MEANS) / DEVIATIONS @ tensor["0.weight"].T + tensor["0.bias"])
    output = hidden @ tensor["2.weight"].T + tensor["2.bias"]
    size_of_terms = np.abs(hidden) @ np.abs(tensor["2.weight"]).T + 1
    tolerance = 1e-6 * size_of_terms * PRICE.deviation
    assert (np.abs(np.array(found)[:, None] - (output * PRICE.deviation + PRICE.mean)) < tolerance).all()
