"""The page and the views of `inspect`, on the screen and as JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text

from twolayer.cli import terminal
from twolayer.cli.terminal import out
from twolayer.formatting import counted, json_number, safe

if TYPE_CHECKING:
    from twolayer.training.from_run import Place
    from twolayer.training.importance import Importances
    from twolayer.training.inspection import Inspection, Tensor

_LISTED = 12  # hidden units by number
_COLUMNS = 15  # of a table, by importance
_BACK = (
    ("output", "{loss}"),
    ("2.weight", "output' hidden;  2.bias: output, summed over the rows"),
    ("pre-activation", "output W2 where the unit is on, else 0"),
    ("0.weight", "pre-activation' x;  0.bias: pre-activation, summed over the rows"),
)


def title(text: str) -> None:
    """A heading, with an empty line above it."""
    out().print()
    out().print(Text(text, "bold"))


def page(found: Inspection, importances: Importances | None) -> None:
    """The page: the network, its parameters, its hidden units, and the gradients twice."""
    terminal.say(str(found.model))
    terminal.say(f"loss {found.loss:.6g} ({_loss_in_words(found)})")
    parameter_table(found.parameters)
    title("Hidden units")
    for line in units(found):
        terminal.say(line)
    title("Gradients of the loss, by autograd and by hand")
    gradient_table(found)
    if importances is not None:
        importance_table(importances)


def parameter_table(named: dict[str, Tensor]) -> None:
    """The parameters: shape, count, norm, min and max."""
    title("Parameters")
    rows = [(name, shape(p), f"{p.numel():,}", *figures(p)) for name, p in named.items()]
    _table(("tensor", "shape", "count", "norm", "min", "max"), rows, left=(0, 1))


def gradient_table(found: Inspection) -> None:
    """The gradients with the size of a step, and how far those by hand are from them."""
    rows = []
    for name, other in found.differences().items():
        gradient, weight = found.gradients[name], found.parameters[name]
        step = found.lr * float(gradient.norm()) / (float(weight.norm()) or math.nan)
        zeros = int((gradient == 0).sum())
        rows.append(
            (
                name,
                *figures(gradient),
                f"{zeros:,}",
                f"{step:.3g}",
                "same bits" if other is None else f"{other:.2g} off",
            )
        )
    names = ("tensor", "norm", "min", "max", "zeros", "step/norm", "by hand")
    _table(names, rows, left=(0, 7))
    terminal.say("\nby hand, from the output to the input:")
    at_output = "softmax(output) - y" if found.config.loss == "cross_entropy" else "2 (output - y)"
    n, D_out = found.output.shape
    if found.config.reduction == "mean":
        at_output = f"({at_output}) / {n if found.config.loss == 'cross_entropy' else n * D_out:,}"
    width = max(len(name) for name, _ in _BACK)
    for name, text in _BACK:
        terminal.say(f"  {name:<{width}}  {text.format(loss=at_output)}")
    terminal.say(f"step/norm: lr {found.lr:.4g} times the gradient's norm, by the tensor's norm")


def units(found: Inspection) -> Iterator[str]:
    """Sentences about the hidden units."""
    H, rows = len(found.active), len(found.x)
    share = float(found.active.sum()) / (H * rows)
    yield f"on (above zero) in {share:.1%} of {counted(H, 'unit')} x {counted(rows, 'row')}"
    dead, always = found.dead, found.always_on
    yield f"off for every row (dead): {_listed(dead)}"
    if dead:
        is_one = len(dead) == 1
        whose, what = ("its", "it") if is_one else ("their", "them")
        yield f"  all {whose} gradients are exactly 0, in both layers: no step on these rows moves {what}"
    yield f"on for every row: {_listed(always)}"


def _listed(numbers: Sequence[int]) -> str:
    if not numbers:
        return "none"
    more = f" and {len(numbers) - _LISTED:,} more" if len(numbers) > _LISTED else ""
    what = "unit" if len(numbers) == 1 else f"{len(numbers):,} units:"
    return f"{what} {', '.join(map(str, numbers[:_LISTED]))}{more}"


def importance_table(found: Importances) -> None:
    """Permutation importance by column."""
    where = "held out for validation" if found.are_held_out else "of the training: none are held out"
    title("Importance of the columns: the loss when one is shuffled")
    rows = [
        (item.column, f"{item.loss:+.4g}", f"{item.spread:.2g}", f"{item.change:+.4g}")
        for item in found.columns[:_COLUMNS]
    ]
    _table(("column", "loss", "spread", found.measure), rows)
    if (more := len(found.columns) - _COLUMNS) > 0:
        terminal.say(f"and {counted(more, 'column')} more; --format jsonl has all")
    losses = f"loss unshuffled {found.loss:.4g}, of the constant {found.constant:.4g}"
    terminal.say(f"on {counted(found.rows, 'row')} {where}; {losses}")
    terminal.say("columns that say the same share it: each alone can look useless")


def shape(tensor: Tensor) -> str:
    """The shape: `100 x 1000`."""
    return " x ".join(map(str, tensor.shape))


def figures(tensor: Tensor) -> tuple[str, str, str]:
    """Norm, min and max, four digits each."""
    return f"{float(tensor.norm()):.4g}", f"{float(tensor.min()):.4g}", f"{float(tensor.max()):.4g}"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> None:
    """A table whose columns are aligned to the right, but for those `left`."""
    columns = list(zip(names, *rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    aligned = [
        [cell if i in left else " " * (widths[i] - cell_len(cell)) + cell for cell in column]
        for i, column in enumerate(columns)
    ]
    head, *body = zip(*aligned, strict=True)
    terminal.table([list(head), *(list(map(safe, row)) for row in body)])


def _loss_in_words(found: Inspection) -> str:
    what = "cross entropy" if found.config.loss == "cross_entropy" else "squared errors"
    how = "sum" if found.config.reduction == "sum" else "mean"
    return f"the {how} of the {what} over {counted(len(found.x), 'row')}"


def show(
    found: Inspection, columns: Importances | None, other: Inspection | None, view: str, rows: int, layer: int | None
) -> None:
    """Print the page, or one view."""
    if other is not None:
        device_table(found, other)
    elif view == "step":
        step_table(found, rows)
    elif view:
        if layer is not None:
            terminal.say(f"({layer}): {found.model[layer]}")
        tensors(parts(found, view, rows, layer))
    else:
        page(found, columns)


def parts(found: Inspection, view: str, rows: int, layer: int | None) -> dict[str, Tensor]:
    """The tensors of a view by name; of those with a row for each row of the data the first ones."""
    if view == "parameters":
        return found.parameters
    forward = {
        "x": found.x[:rows],
        "pre-activation": found.pre[:rows],
        "hidden": found.hidden[:rows],
        "output": found.output[:rows],
        "y": found.y[:rows],
    }
    if view == "forward":
        return forward
    if view == "backward":
        at = {f"gradient at {name}": signal[:rows] for name, signal in found.signals.items()}
        return at | {f"gradient of {name}": gradient for name, gradient in found.gradients.items()}
    ends = {0: ("x", "pre-activation"), 1: ("pre-activation", "hidden"), 2: ("hidden", "output")}[layer or 0]
    own = {name: p for name, p in found.parameters.items() if name.startswith(f"{layer}.")}
    grown = {f"gradient of {name}": found.gradients[name] for name in own}
    return own | {f"{place}: {name}": forward[name] for place, name in zip(("in", "out"), ends, strict=True)} | grown


def step_table(found: Inspection, rows: int) -> None:
    """The first numbers of each parameter before and after one step."""
    terminal.say(f"p <- p - {found.lr:.6g} gradient; the first {counted(rows, 'number')} of each tensor")
    cells = []
    for name, before in found.parameters.items():
        triple = zip(before.flatten(), found.gradients[name].flatten(), found.after[name].flatten(), strict=True)
        for index, three in zip(range(rows), triple, strict=False):
            place = ", ".join(map(str, _index(index, before.shape)))
            cells.append((f"{name}[{place}]", *(f"{float(number):.8g}" for number in three)))
    _table(("number", "before", "gradient", "after"), cells)
    terminal.say(f"loss before {found.loss:.8g}, after {found.loss_after():.8g}")


def _index(place: int, sizes: Sequence[int]) -> list[int]:
    """The indices of the number at a place of a flattened tensor."""
    found: list[int] = []
    for size in reversed(sizes):
        found.insert(0, place % size)
        place //= size
    return found


def device_table(found: Inspection, other: Inspection) -> None:
    """How far the numbers of another device are from these."""
    terminal.say(f"on {other.config.device}, and its largest difference from {found.config.device}")
    _table(("tensor", "shape", "norm", "difference"), list(_compared(found, other)), left=(0, 1))


def _compared(found: Inspection, other: Inspection) -> Iterator[tuple[str, str, str, str]]:
    pairs = {"hidden": (found.hidden, other.hidden), "output": (found.output, other.output)}
    pairs |= {f"gradient of {name}": (g, other.gradients[name]) for name, g in found.gradients.items()}
    for name, (here, there) in pairs.items():
        off = found.difference(here, there)
        yield name, shape(there), f"{float(there.norm()):.6g}", "same bits" if off is None else f"{off:.2g}"


def tensors(named: dict[str, Tensor]) -> None:
    """Tensors as PyTorch prints them, each below its name and shape."""
    from twolayer.training.inspection import lines_of

    for name, tensor in named.items():
        out().print()
        out().print(Text.assemble((name, "bold"), f"  {shape(tensor)}"))
        for line in lines_of(tensor, terminal.width() or 80):
            terminal.say(line)


def write_json(
    found: Inspection, columns: Importances | None, other: Inspection | None, view: str, rows: int, layer: int | None
) -> None:
    """The same as JSON lines, with every digit and, of tensors, every number."""
    lines: list[dict[str, Any]]
    if other is not None:
        pairs = _compared(found, other)
        lines = [dict(zip(("name", "shape", "norm", "difference"), row, strict=True)) for row in pairs]
    elif view == "step":
        after = found.after
        lines = [
            {"name": name, "before": numbers(p.tolist()), "gradient": numbers(found.gradients[name].tolist()),
             "after": numbers(after[name].tolist())}
            for name, p in found.parameters.items()
        ]  # fmt: skip
    elif view:
        named = parts(found, view, rows, layer)
        lines = [{"name": name, "shape": list(t.shape), "values": numbers(t.tolist())} for name, t in named.items()]
    else:
        lines = list(_page_rows(found, columns))
    terminal.write("".join(json.dumps(line) + "\n" for line in lines))


def _page_rows(found: Inspection, columns: Importances | None) -> Iterator[dict[str, Any]]:
    for name, off in found.differences().items():
        p, gradient = found.parameters[name], found.gradients[name]
        yield {
            "tensor": name,
            "shape": list(p.shape),
            **{key: json_number(float(getattr(p, key)())) for key in ("norm", "min", "max")},
            **{f"gradient_{key}": json_number(float(getattr(gradient, key)())) for key in ("norm", "min", "max")},
            "gradient_zeros": int((gradient == 0).sum()),
            "by_hand_off": 0.0 if off is None else json_number(off),
        }
    yield {
        "loss": json_number(found.loss), "lr": json_number(found.lr), "rows": len(found.x),
        "active": found.active.tolist(), "dead": found.dead, "always_on": found.always_on,
    }  # fmt: skip
    for item in columns.columns if columns is not None else ():
        yield {"column": item.column, "loss_rise": item.loss, "spread": item.spread, columns.measure: item.change}  # type: ignore[union-attr]


def numbers(values: Any) -> Any:
    """Lists of numbers as JSON can hold them."""
    return [numbers(value) for value in values] if isinstance(values, list) else json_number(values)


def python_lines(place: Place, loading: str, view: str, rows: int, layer: int | None) -> list[str]:
    """Lines for a Python prompt that show the same; `loading` is the expression that loads the config."""
    lines = ["import torch", "import twolayer"]
    lines += [f"config, data, model = twolayer.prepare({loading})"]
    if place.is_kept and place.run is not None:
        lines += ["from safetensors.torch import load_file"]
        lines += [f"weights = load_file({str(place.run.path / 'model.safetensors')!r})"]
        lines += ["model.load_state_dict({key: weights[key] for key in model.state_dict()})"]
    elif place.iteration:
        lines += [f'blocks = twolayer.fit(model, data, config.model_copy(update={{"epochs": {place.iteration}}}))']
        lines += ["losses = [loss for block in blocks for loss in block.losses]"]
    kind = "mse_loss(output, data.y" if place.config.loss == "mse" else "cross_entropy(output, data.y.argmax(1)"
    lines += ["output = model(data.x)"]
    lines += [f'loss = torch.nn.functional.{kind}, reduction="{place.config.reduction}")', "loss.backward()"]
    each = "for name, p in model.named_parameters():"
    some = f"data.x[:{rows}]"
    shown = {
        "": ["print(model)", f"{each} print(name, tuple(p.shape), p.norm(), p.min(), p.max(), p.grad.norm())"],
        "parameters": [f"{each} print(name, p)"],
        "layer": [f"print(model[{layer}])", f"print(model[:{(layer or 0) + 1}]({some}))"],
        "forward": [f"print(model[0]({some}), model[:2]({some}), model({some}))"],
        "backward": [f"{each} print(name, p.grad)"],
        "step": [f"{each} print(name, p, p.grad, p - {place.lr!r} * p.grad)"],
    }
    return lines + shown.get(view, shown[""])
