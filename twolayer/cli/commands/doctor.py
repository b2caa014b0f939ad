"""The command `doctor`."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Annotated

import typer

from twolayer.cli import process, terminal
from twolayer.cli.doctor_view import DoctorView, published_table
from twolayer.cli.options import DeviceOption, FormatOption
from twolayer.cli.process import computing
from twolayer.cli.progress import Bar
from twolayer.cli.ranks import on_this_machine
from twolayer.cli.resolving import resolve
from twolayer.formatting import counted

if TYPE_CHECKING:
    from twolayer.training.doctor.examination import Examination

commands = typer.Typer()


@commands.command(epilog="Example:  twolayer doctor --device cuda")
def doctor(
    context: typer.Context,
    device: DeviceOption = None,
    long: Annotated[
        float | None,
        typer.Option(
            "--long", metavar="MINUTES", min=0, max=10_000, help="Then repeat a product of which every bit is known."
        ),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Only print the 500 losses of the rTorch book beside your own.")
    ] = False,
    ranks: Annotated[
        int | None,
        typer.Option("--ranks", metavar="INT", min=2, max=64, help="Also compare this number of processes."),
    ] = None,
    format_: FormatOption = "table",
) -> None:
    """Check that this machine computes the right numbers, and how fast.

    Every engine trains the network of the rTorch book, whose losses are published, and one that numpy trains as well;
    then again in ways that must give the same bits. The exit code is 1 if a number is wrong or the device cannot be
    used, and never because of the speed. The output names no user, no path and no machine: paste it into an issue.
    """
    if published and ranks is not None:
        raise typer.BadParameter("--published prints the losses alone; leave out --ranks")
    if published and long is not None:
        raise typer.BadParameter("--published prints the losses alone; leave out --long")
    wanted, start = resolve("default", [], context).config.device, time.perf_counter()
    with computing():
        from twolayer.training.doctor import examination, own_losses  # a second, nearly all of it torch

    process.start_computing()
    if published:
        raise typer.Exit(published_table(own_losses.own_losses(wanted), format_))
    view, code = DoctorView(format_), 0
    try:
        with on_this_machine(ranks or 1) as others:
            meet = others.start_and_meet if others is not None else None
            _examine(examination.Examination(wanted, meet), view, 60 * (long or 0))
    except KeyboardInterrupt:
        terminal.note("interrupted")
        code = 128 + signal.SIGINT
    view.verdict(time.perf_counter() - start)
    raise typer.Exit(code or min(view.wrong, 1))


def _examine(found: Examination, view: DoctorView, seconds: float) -> None:
    """Show each section as soon as it is done."""
    view.section("environment", found.environment())
    view.section("device", found.find_device())
    if not found.device:
        return
    with Bar(len(found.sections)) as bar:
        for number, name in enumerate(found.sections):
            bar.draw(number, name)

            def progress(what: str, number: int = number, name: str = name) -> None:
                bar.draw(number, f"{name}  {what}") if what else bar.erase()

            view.section(name, found.section(name), progress)
    if seconds:
        with Bar(round(seconds)) as bar:
            products = found.long(seconds, lambda done, count: bar.draw(int(done), f"s  {counted(count, 'product')}"))
            view.section("long", products, lambda what: bar.erase())
