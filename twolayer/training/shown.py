"""A trained network as a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from twolayer.reporting import notebook
from twolayer.reporting.notebook import ParameterFigures
from twolayer.runs.model_file import figures


def as_html(line: str, history: Mapping[str, Sequence[float]], model: nn.Sequential, notes: Sequence[str] = ()) -> str:
    """The line, the curves of the losses, a table of the model's parameters and the notes, as HTML."""
    tensors = ((name, parameter.detach().cpu().numpy()) for name, parameter in model.named_parameters())
    rows = [ParameterFigures(name, " x ".join(map(str, array.shape)), figures(array)) for name, array in tensors]
    return notebook.html(line.strip("<>"), history, rows, notes)
