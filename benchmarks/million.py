"""A table of a million rows and 20 inputs, 10 epochs, as whole processes: twolayer beside scikit-learn and PyTorch.

    python benchmarks/million.py [rounds] [--json PATH]

Each program reads the same CSV, holds out a tenth, scales, trains 20 -> 64 -> 1 by plain gradient descent on batches of
256 with the same learning rate and float32, and prints its R2 on the rows held out. `python benchmarks/million.py
PROGRAM FILE` is one of the peers: scikit-learn's MLPRegressor, and the loop of the tutorials with a DataLoader.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import harness
import numpy as np
import polars as pl

ROWS, D_in, H, EPOCHS, BATCH_SIZE, LR = 1_000_000, 20, 64, 10, 256, 0.05
LEAST, SPREAD = 0.9, 0.02  # of the programs' R2: all have learnt the same
TWOLAYER = str(Path(sys.executable).with_name("twolayer"))
KEYS = {"H": H, "batch_size": BATCH_SIZE, "validation": 0.1, "patience": "null", "average": "null"}


def write(path: Path) -> None:
    """Friedman's function of the first five of 20 uniform columns, and noise."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(ROWS, D_in))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    columns = {f"x{j}": x[:, j] for j in range(D_in)} | {"y": y + rng.normal(size=ROWS)}
    pl.DataFrame(columns).write_csv(path, float_precision=5)


def read(path: str) -> tuple[Any, ...]:
    """The table as a peer takes it, inputs and target scaled: x, y, and those held out."""
    frame = pl.read_csv(path)
    x, y = frame.drop("y").to_numpy().astype(np.float32), frame["y"].to_numpy().astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    held, kept = np.split(order, [len(x) // 10])
    x, y = (x - x[kept].mean(0)) / x[kept].std(0), (y - y[kept].mean()) / y[kept].std()
    return x[kept], y[kept], x[held], y[held]


def by_scikit_learn(path: str) -> float:
    """MLPRegressor, whose loss is half the mean of the squares."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    x, y, x_held, y_held = read(path)
    plain = {"solver": "sgd", "momentum": 0, "nesterovs_momentum": False, "alpha": 0, "batch_size": BATCH_SIZE}
    endless = {"max_iter": EPOCHS, "tol": 0, "n_iter_no_change": EPOCHS + 1}
    net = MLPRegressor(hidden_layer_sizes=(H,), learning_rate_init=2 * LR, **plain, **endless, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `max_iter` is what ends it
        net.fit(x, y)
    return float(net.score(x_held, y_held))


def by_hand(path: str) -> float:
    """The loop of the tutorials: a TensorDataset, a DataLoader that shuffles, torch.optim.SGD."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    x, y, x_held, y_held = (torch.from_numpy(array) for array in read(path))
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(x, y[:, None]), batch_size=BATCH_SIZE, shuffle=True)
    model = nn.Sequential(nn.Linear(D_in, H), nn.ReLU(), nn.Linear(H, 1))
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=LR), nn.MSELoss()
    for _ in range(EPOCHS):
        for inputs, targets in loader:
            loss = loss_fn(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return float(1 - (model(x_held)[:, 0] - y_held).square().mean() / y_held.var(correction=0))


PEERS = {"scikit-learn": by_scikit_learn, "by hand, DataLoader": by_hand}


def commands(path: Path) -> dict[str, list[str]]:
    """The processes by name."""
    keys = [word for key, value in KEYS.items() for word in ("--set", f"{key}={value}")]
    ours = [TWOLAYER, "train", str(path), "--target", "y", "--lr", str(LR), "--epochs", str(EPOCHS), *keys]
    ours += ["--no-save", "--quiet"]
    peers = {name: [sys.executable, __file__, name, str(path)] for name in PEERS}
    return {"twolayer": ours, "twolayer, fused": [*ours, "--engine", "fused"], **peers}


def run(command: list[str]) -> tuple[dict[str, float], str]:
    """What a process took, its seconds, its CPU seconds and the most memory in MiB; and what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TWOLAYER_")}
    start = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    taken = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"seconds": round(taken, 2), "cpu": round(cpu, 2), "MiB": round(usage.ru_maxrss / 1024)}, output


def score(output: str) -> float:
    """The R2 on the rows held out: a peer prints it, and twolayer the loss of a target that is scaled."""
    if found := re.search(r"val_loss ([\d.e-]+)", output):
        return 1 - float(found[1])
    return float(output)


def told(results: dict[str, Any]) -> str:
    """The section of docs/performance.md, from the results of a run."""
    found = results["programs"]
    base = statistics.median(each["seconds"] for each in found["twolayer"])
    lines = [
        f"`python benchmarks/million.py` ({results['date']}, {results['rounds']} rounds in turn, load average"
        f" {results['load']:.1f} on {results['hardware']['cores']} cores): a CSV of",
        f"{results['rows']:,} rows and {D_in} inputs, read, scaled and trained for {EPOCHS} epochs, {D_in} -> {H} -> 1"
        f" on batches of {BATCH_SIZE}, as whole processes;",
        "and the R2 on the tenth that is held out." + harness.caution(results),
        "",
        "| process | seconds | CPU seconds | MiB | R2 | times twolayer's |",
        "|---|---|---|---|---|---|",
    ]
    for name, rounds in found.items():
        seconds, cpu, most, r2 = (statistics.median(each[key] for each in rounds) for key in rounds[0])
        lines.append(f"| {name} | {seconds:.1f} | {cpu:.1f} | {most:.0f} | {r2:.3f} | {seconds / base:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """A peer, or all in turn."""
    if sys.argv[1:2] and sys.argv[1] in PEERS:
        print(PEERS[sys.argv[1]](sys.argv[2]))
        return
    options = harness.options(__doc__ or "", rounds=2)
    with TemporaryDirectory() as folder:
        path = Path(folder, "million.csv")
        write(path)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in commands(path)}
        for _ in range(options.rounds):
            for name, command in commands(path).items():
                taken, output = run(command)
                found[name].append(taken | {"R2": round(score(output), 4)})
                print(name, found[name][-1], flush=True)
    scores = [each["R2"] for rounds in found.values() for each in rounds]
    if min(scores) < LEAST or max(scores) - min(scores) > SPREAD:
        raise SystemExit(f"the programs have learnt something else: R2 {scores}")
    results = {"rounds": options.rounds, "rows": ROWS, "programs": found}
    print("\n" + told(harness.environment() | results))
    harness.save(options.json, results)


if __name__ == "__main__":
    main()
