"""What looking at runs costs: commands as whole processes in turn, a report opening in Chromium, and event files.

python benchmarks/looking.py [rounds] [--json PATH]
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import harness
from playwright.sync_api import sync_playwright

TWOLAYER = str(Path(sys.executable).with_name("twolayer"))
SHORT, LONG, TABLE = "default-1", "default-2", "table"  # runs of 500 and of 100,000 iterations, and of six columns
LENGTH = 100_000
COMMANDS = {
    "the imports alone": [sys.executable, "-c", "import typer, rich.console, pydantic, yaml"],
    "twolayer runs": [TWOLAYER, "runs"],
    "show, 500 iterations": [TWOLAYER, "show", SHORT],
    f"show, {LENGTH} iterations": [TWOLAYER, "show", LONG],
    f"compare, {LENGTH} iterations": [TWOLAYER, "compare", LONG, LONG, "--expect-equal"],
    "plot to PNG, 500 iterations": [TWOLAYER, "plot", SHORT, "-o", "loss.png"],
    "report, 500 iterations": [TWOLAYER, "report", SHORT, "-o", f"{SHORT}.html"],
    f"report, {LENGTH} iterations": [TWOLAYER, "report", LONG, "-o", f"{LONG}.html"],
    f"report, {LENGTH} epochs of a table": [TWOLAYER, "report", TABLE, "-o", f"{TABLE}.html"],
}
MOST_SECONDS = {"show, 500 iterations": 1.0, f"show, {LENGTH} iterations": 1.0}
MOST_TO_OPEN, MOST_BYTES = 3.0, 6_000_000


def taken(command: list[str], folder: Path) -> float:
    """The seconds that a process takes."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return round(time.perf_counter() - start, 4)


def prepare(folder: Path) -> None:
    """The runs that are looked at."""
    (folder / "my.csv").write_text("a,b,kind\n" + "".join(f"{i % 7},{i * i % 11},{'yn'[i % 2]}\n" for i in range(60)))
    table = ["my.csv", "--target", "kind", "--out", f"runs/{TABLE}", "--lr", "auto"]
    table += ["--set", "validation=0.2", "--set", "patience=null"]  # or it would end long before
    for options in ([], ["--epochs", str(LENGTH), "--lr", "1e-6"], [*table, "--epochs", str(LENGTH)]):
        taken([TWOLAYER, "train", "--quiet", *options], folder)


def opening(folder: Path, rounds: int) -> dict[str, list[float]]:
    """The seconds from the opening of a report until its chart is drawn and its table is ready."""
    found: dict[str, list[float]] = {SHORT: [], LONG: [], TABLE: []}
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(rounds):
            for name, times in found.items():
                page = browser.new_page()
                start = time.perf_counter()
                page.goto((folder / f"{name}.html").as_uri())
                page.wait_for_selector("html[data-ready]", state="attached")
                times.append(round(time.perf_counter() - start, 4))
                page.close()
        browser.close()
    return found


def events(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Trainings with event files and without, in turn."""
    found: dict[str, list[float]] = {"with --tensorboard": [], "without": []}
    for turn in range(rounds):
        for name in sorted(found, reverse=bool(turn % 2)):
            more = ["--tensorboard"] if name != "without" else []
            command = [TWOLAYER, "train", "--quiet", "--epochs", str(LENGTH), "--lr", "1e-6", "--out", "timed", *more]
            found[name].append(taken(command, folder))
            shutil.rmtree(folder / "timed")
    return found


def main() -> None:
    """Run it all, and print what it took."""
    options = harness.options(__doc__ or "", rounds=7)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with TemporaryDirectory() as made:
        folder = Path(made)
        prepare(folder)
        for turn in range(options.rounds + 1):
            for name, command in COMMANDS.items():
                seconds = taken(command, folder)
                if turn:  # the first is a warm-up
                    times[name].append(seconds)
        pages = opening(folder, options.rounds)
        weights = {name: (folder / f"{name}.html").stat().st_size for name in pages}
        trainings = events(folder, max(3, options.rounds // 2))

    medians = {name: statistics.median(all_times) for name, all_times in times.items()}
    alone = medians["the imports alone"]
    print(f"{options.rounds} rounds, whole processes, seconds\n")
    print("| process | median | min | max | of the imports alone | goal |\n|---|---|---|---|---|---|")
    for name, all_times in times.items():
        row: list[Any] = [f"{value:.2f}" for value in (medians[name], min(all_times), max(all_times))]
        goal = MOST_SECONDS.get(name)
        said = f"below {goal:g}: {'yes' if medians[name] < goal else 'NO'}" if goal else ""
        print(f"| {name} | {' | '.join(row)} | {medians[name] / alone:.2f} | {said} |")
    print("\n| report of | opens in, seconds | min | max | below 3 | MB | at most 6 |\n|---|---|---|---|---|---|---|")
    for name, all_times in pages.items():
        median, size = statistics.median(all_times), weights[name]
        row = [f"{value:.2f}" for value in (median, min(all_times), max(all_times))]
        met = ["yes" if good else "NO" for good in (median < MOST_TO_OPEN, size <= MOST_BYTES)]
        print(f"| {name} | {' | '.join(row)} | {met[0]} | {size / 1e6:.2f} | {met[1]} |")
    each = {name: statistics.median(all_times) for name, all_times in trainings.items()}
    cost = (each["with --tensorboard"] - each["without"]) / LENGTH * 1e6
    print(f"\n{LENGTH} iterations: {each['without']:.2f} s, with event files {each['with --tensorboard']:.2f} s, ")
    print(f"{cost:.1f} microseconds per iteration more")
    found = {"seconds": times, "opening": pages, "bytes": weights, "trainings": trainings}
    harness.save(options.json, {"rounds": options.rounds, **found})


if __name__ == "__main__":
    main()
