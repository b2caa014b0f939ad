"""A sweep in front of a user: its points trained, printed as they end, and the tables at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from twolayer.cli import process, progress, sweep_tables, terminal
from twolayer.cli.sweep_tables import in_words
from twolayer.cli.terminal import Format
from twolayer.config.schema import Config
from twolayer.formatting import counted
from twolayer.hardware import device, memory
from twolayer.reporting import sweep_summary
from twolayer.runs import checkpoint_interval
from twolayer.sweeps import results
from twolayer.sweeps.folder import SweepFolder
from twolayer.sweeps.points import Plan, Point
from twolayer.sweeps.published import curve_of
from twolayer.sweeps.results import Result
from twolayer.training.sweep_points import Event, Job, Progress, Trainer
from twolayer.training.sweep_pool import Pool, most_jobs, resolved

_PAUSE = 0.1  # seconds between two drawings of the bar


def unsaved(plan: Plan, jobs: int | None, form: Format, *, quiet: bool) -> int:
    """Train a sweep of which nothing is saved but what is printed; the exit code."""
    published = curve_of(plan.points[0].config)
    job = Job(plan.source, rows=tuple(published.losses) if published is not None else ())
    view = View(plan, form, quiet=quiet)
    return _run(view, job, [(point, "") for point in plan.points], jobs)


def saved(
    folder: SweepFolder, done: Sequence[Result], existing: Mapping[str, str], jobs: int | None, form: Format,
    *, quiet: bool, moved: Mapping[str, str] | None = None,
) -> int:  # fmt: skip
    """Train what is left of a sweep in its folder; the exit code. Raises RunError.

    `moved` are the paths of tables that are elsewhere now, by those in the configs.
    """
    plan, info = folder.plan, folder.info
    every = checkpoint_interval.parse(str(info.get("checkpoint_every", "30s")))
    job = Job(
        plan.source, folder.path, every, note=str(info.get("note", "")), tensorboard=info.get("tensorboard") is True,
        moved=moved or {},
    )  # fmt: skip
    folder.write_table(done)
    ended = {result.point.number for result in done}
    left = [(point, existing.get(point.sha256, "")) for point in plan.points if point.number not in ended]
    terminal.note(f"sweep {folder.path}" + (f": {len(done):,} of {len(plan.points):,} points are done" if done else ""))
    view = View(plan, form, quiet=quiet, folder=folder, ended=list(done))
    return _run(view, job, left, jobs)


@dataclass
class View:
    """Shows a sweep while it runs, and at its end."""

    plan: Plan
    form: Format
    quiet: bool
    folder: SweepFolder | None = None
    ended: list[Result] = field(default_factory=list)
    curves: dict[int, dict[int, float]] = field(default_factory=dict)  # the losses that are compared, by point
    drawn_at: float = 0.0

    def begin(self) -> None:
        """Print the header of csv, and the rows of points that have ended before."""
        if self.form == "csv":
            terminal.write(results.csv_line(results.columns(self.plan)))
        for result in self.ended:
            self._row(result)

    def _row(self, result: Result) -> None:
        if self.form == "csv":
            terminal.write(results.csv_line(results.cells(result)))
        elif self.form == "jsonl":
            terminal.write(sweep_tables.json_line(self.plan, result))

    def show(self, event: Event, bar: progress.Bar) -> None:
        """Show, and record, an event."""
        if isinstance(event, Progress):
            if time.monotonic() - self.drawn_at >= _PAUSE:
                loss = f", loss {event.loss:.6g}" if event.loss is not None else ""
                done = f"{event.done:.1f}".removesuffix(".0")  # with batches a part of an epoch, too
                bar.draw(len(self.ended), f"{event.point.name}: {done} of {event.total}{loss}")
                self.drawn_at = time.monotonic()
            return
        result = event.result
        self.ended.append(result)
        self.curves[result.point.number] = dict(event.losses)
        if self.folder is not None and result.status != "interrupted":
            self.folder.add(result)
        if result.status == "failed":
            bar.erase()
            terminal.error(f"{result.point.name}: {result.error}")
        self._row(result)
        if self.form == "table" and not (self.quiet or bar.is_shown or result.status == "failed"):
            terminal.note(f"{len(self.ended)}/{len(self.plan.points)} {in_words(result)}")


def _run(view: View, job: Job, points: Sequence[tuple[Point, str]], jobs: int | None) -> int:
    """Train points, show them, and print the tables; the exit code."""
    trainer = trainer_of(job, resolved(point for point, _ in points), jobs)
    view.begin()
    count = len(view.plan.points)
    with (
        process.Stop(lambda: trainer.request_stop(stop.exit_code)) as stop,
        progress.Bar(count, hidden=view.quiet) as bar,
        closing(trainer.events(points)) as events,
    ):
        for event in events:
            view.show(event, bar)
    done = [result for result in view.ended if result.status != "interrupted"]
    if view.folder is not None:
        view.folder.write_table(done)
    if stop.exit_code and len(done) < count:
        terminal.note(f"interrupted after {len(done):,} of {count:,} points")
        if view.folder is not None:
            terminal.note(f"resume with: twolayer train --resume {sweep_tables.name_of(view.folder.path)}")
        return stop.exit_code
    return _finish(view)


def check(plan: Plan) -> None:
    """Raise TwolayerError where a point cannot be trained here."""
    resolved(plan.points)


def trainer_of(job: Job, configs: Sequence[Config], jobs: int | None) -> Trainer | Pool:
    """What trains points with these configs: this process, or others, as many as there are cores and memory for.

    `jobs` is how many are asked for at most, None for no limit. The configs have no `auto`.
    """
    if jobs == 1 or len(configs) < 2:
        return Trainer(job)
    threads = max(int(config.threads) for config in configs)
    most = most_jobs(threads)
    if jobs is not None and jobs > most:
        terminal.note(f"--jobs {jobs}: there is room for {most}, with {counted(threads, 'thread')} a training")
    count = min(most if jobs is None else jobs, most, len(configs))
    fitting = memory.at_once(configs, count, saved=job.folder is not None)
    on_gpu, gpu = device.at_once(configs, count)
    if min(fitting, on_gpu) < count:
        where = f" on {gpu}" if on_gpu < fitting else ""
        fitting = min(fitting, on_gpu)
        terminal.note(f"there is memory{where} for {counted(fitting, 'training')} at a time, not for {count}")
        count = fitting
    return Pool(job, count) if count > 1 else Trainer(job)


def _finish(view: View) -> int:
    """Print the tables and what is to be said about them; the exit code."""
    plan, ended = view.plan, view.ended
    if view.form == "table":
        sweep_tables.print_tables(plan, ended)
        if terminal.out().is_terminal:
            terminal.out().print()
    losses = view.curves if view.folder is None else None
    for line in sweep_summary.remarks(plan, ended, view.folder.path if view.folder is not None else None, losses):
        terminal.note(line)
    failed = [result for result in ended if result.status == "failed"]
    for result in failed:
        terminal.error(f"{result.point.name}: {result.error}")
    if view.folder is not None:
        name = sweep_tables.name_of(view.folder.path)
        if failed:
            terminal.note(f"{counted(len(failed), 'point')} failed; try again with: twolayer train --resume {name}")
        terminal.note(f"saved; see: twolayer show {name}, twolayer report {name}")
    return 1 if failed else 0
