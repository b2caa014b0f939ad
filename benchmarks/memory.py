"""The peak memory of a training at 4096 x 1024 -> 1024 -> 64, beside the buffers that the mathematics needs.

    python benchmarks/memory.py [--json PATH]

Measured twice: what PyTorch's allocator hands out, by its profiler, and by how much the process grows, by Linux's
high-water mark. A small training comes before, so that PyTorch, MKL and their threads are there already.
"""

from __future__ import annotations

import json
import os
import re
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import harness
from torch.profiler import ProfilerActivity, profile

from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.training.loop import train

N, D_in, H, D_out = 4096, 1024, 1024, 64
GOAL = 1.3  # times the buffers
SELF = Path("/proc/self")


def buffers() -> int:
    """The bytes of x, y, the residual, the hidden layer with its gradient, and the parameters with theirs."""
    parameters = H * (D_in + 1) + D_out * (H + 1)
    return 4 * (N * (D_in + 2 * D_out) + 2 * N * H + 2 * parameters)


def allocated(config: Config) -> int:
    """The peak of bytes allocated by PyTorch in a training."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it reports its own start and stop
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        train(config)
    with TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = [event for event in json.loads(path.read_text())["traceEvents"] if event["name"] == "[memory]"]
    events.sort(key=lambda event: float(event["ts"]))
    return max(accumulate(int(event["args"]["Bytes"]) for event in events))


def grown(config: Config) -> int:
    """The peak growth of the process in bytes in a training."""
    (SELF / "clear_refs").write_text("5")  # the high-water mark becomes what there is now
    before = resident("VmRSS")
    train(config)
    return resident("VmHWM") - before


def resident(what: str) -> int:
    """The bytes of this process in memory: `VmRSS` now, `VmHWM` at most so far."""
    found = re.search(rf"^{what}:\s*(\d+) kB", (SELF / "status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    """Train, and print both peaks beside the buffers."""
    options = harness.options(__doc__ or "")
    config = load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, lr=1e-8, epochs=3, environment={})
    train(config.model_copy(update={"N": 64, "D_in": 64, "H": 64}))
    measured = {"grown": grown(config), "allocated": allocated(config)}

    needed = buffers()
    print(f"{N} x {D_in} -> {H} -> {D_out}: the buffers need {needed / 2**20:.1f} MiB\n")
    print("| peak | MiB | of the buffers | goal | met |\n|---|---|---|---|---|")
    for name, count in measured.items():
        met = "yes" if count <= GOAL * needed else "NO"
        print(f"| {name} | {count / 2**20:.1f} | {count / needed:.3f} | at most {GOAL} | {met} |")
    harness.save(options.json, {"shape": [N, D_in, H, D_out], "bytes": {"buffers": needed, **measured}})


if __name__ == "__main__":
    main()
