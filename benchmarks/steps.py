"""`lr: auto` compared with fixed learning rates on the shapes of loop.py: where they end, and what the loop costs.

    python benchmarks/steps.py [--json PATH]

The cost is the CPU time of the loop, on one thread, without start-up and the first measurement; both in turn, the least
of several.
"""

from __future__ import annotations

import time
from typing import Any

import harness
from loop import SHAPES

from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.errors import DivergedError
from twolayer.training.learning_rate import curvature
from twolayer.training.loop import Fit, train
from twolayer.training.outcome import Training
from twolayer.training.setup import prepare

EPOCHS = [500, 500, 500, 500, 60, 60, 60]  # by shape
PARTS = [0.25, 0.5, 1.0]
FLOOR = 1e-11  # of the first loss; below it there is nothing but rounding
MOST_ROUNDS, MOST_SECONDS = 15, 10  # of measuring the cost at a shape
GOAL = 2.0


def main() -> None:
    """Train every shape with each learning rate, and print the last losses relative to the first."""
    options = harness.options(__doc__ or "")
    print("losses after the given iterations, relative to the first\n")
    print(
        "| shape | iterations | lambda | auto, most | auto | " + " | ".join(f"{part:g} / lambda" for part in PARTS),
        end="",
    )
    print(" | 32 / lambda | held | cost of auto / fixed | met |\n" + 12 * "|---" + "|")
    results: list[dict[str, Any]] = []
    for ((N, D_in, H, D_out), _, _), epochs in zip(SHAPES, EPOCHS, strict=False):  # the last is of batches
        config = load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, epochs=epochs, environment={})
        full, data, model = prepare(config)
        largest = curvature(model, data, full).largest
        auto = with_step(config, "auto")
        first = auto.losses[0]
        fixed = [with_step(config, part / largest) for part in PARTS]
        ends = [training.final_loss / first for training in fixed]
        cost = ratio(config, 0.25 / largest)
        try:
            beyond = f"{with_step(config, 32 / largest).final_loss / first:.3g}"
        except DivergedError as error:
            beyond = f"diverged at {error.iteration}"
        row = [max(auto.losses) / first, auto.final_loss / first, *ends]
        ends_ahead = all(end >= 0.5 * row[1] for end in ends) or row[1] < FLOOR
        held = row[0] <= 1 and row[1] < 1 and ends_ahead and beyond.startswith("diverged")
        shown = " | ".join([f"{largest:.4g}", *(f"{x:.3g}" for x in row), beyond, "yes" if held else "NO"])
        print(f"| {config.shape} | {epochs} | {shown} | {cost:.2f} | {'yes' if cost <= GOAL else 'NO'} |", flush=True)
        results.append({"shape": [N, D_in, H, D_out], "lambda": largest, "losses": row, "beyond": beyond, "cost": cost})
    harness.save(options.json, {"epochs": EPOCHS, "parts": PARTS, "shapes": results})


def with_step(config: Config, lr: float | str) -> Training:
    """The training with that learning rate."""
    return train(config.model_copy(update={"lr": lr}))


def ratio(config: Config, lr: float) -> float:
    """The CPU time of the loop with `lr: auto`, over that with a fixed learning rate."""
    taken: tuple[list[float], list[float]] = [], []
    end = time.perf_counter() + MOST_SECONDS
    while len(taken[0]) < MOST_ROUNDS and (not taken[0] or time.perf_counter() < end):
        for times, each in zip(taken, ("auto", lr), strict=True):
            resolved, data, model = prepare(config.model_copy(update={"lr": each, "threads": 1}))
            training = Fit(model, data, resolved)
            start = time.process_time()
            for _ in training:
                pass
            times.append(time.process_time() - start)
    return min(taken[0]) / min(taken[1])


if __name__ == "__main__":
    main()
