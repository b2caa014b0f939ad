"""The command `lr`."""

from __future__ import annotations

import typer

from twolayer.cli import process, terminal
from twolayer.cli.options import (
    ClassesOption,
    ConfigArgument,
    DeviceOption,
    ExcludeOption,
    FormatOption,
    InputsOption,
    LrOption,
    MissingOption,
    SeedOption,
    SetOption,
    TargetOption,
    ThreadsOption,
)
from twolayer.cli.process import computing
from twolayer.cli.resolving import resolve

commands = typer.Typer()


@commands.command("lr", epilog="Example:  twolayer lr scratch --set H=64")
def lr_command(
    context: typer.Context,
    config: ConfigArgument = "default",
    device: DeviceOption = None,
    lr: LrOption = None,
    seed: SeedOption = None,
    threads: ThreadsOption = None,
    target: TargetOption = None,
    inputs: InputsOption = None,
    exclude: ExcludeOption = None,
    missing: MissingOption = None,
    classes: ClassesOption = False,
    set_: SetOption = None,
    format_: FormatOption = "table",
) -> None:
    """Measure the largest stable learning rate at the initial weights.

    lambda is the largest eigenvalue of the Hessian of the loss; with a learning rate above 2 / lambda, gradient descent
    moves away from any minimum. Without batches `lr: auto` starts with 1 / lambda.
    """
    resolved = resolve(config, set_ or [], context)
    with computing():
        from twolayer.training import learning_rate, setup  # a second, nearly all of it torch

    process.start_computing()
    full, data, model = setup.prepare(resolved.config, resolved.table)
    found = learning_rate.curvature(model, data, full)
    batched = full.batch_size is not None and full.batch_size < full.N
    start = "lr auto starts with it" if not batched else "lr auto also counts what a row does to a batch"
    rows = [
        ("lambda", found.largest, f"by {found.products} products with the Hessian"),
        ("2 / lambda", found.limit, "the largest stable learning rate"),
        ("1 / lambda", found.limit / 2, f"to try; {start}"),
    ]
    if full.lr != "auto":
        rows.append(("lr", full.lr, f"given: {full.lr / found.limit:.3g} times the limit"))
    if format_ == "table":
        terminal.rows(
            ("what", "value", "comment"), [(name, f"{value:.4g}", what) for name, value, what in rows], format_
        )
    else:
        terminal.rows(("what", "value", "comment"), rows, format_)
