"""What a config is: its keys, what each may be, and what it means."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from twolayer.tables.options import FileData, Frozen

# The largest and the smallest finite numbers above zero that a dtype holds (IEEE 754).
_RANGE = {"float32": (2.0**-149, (2 - 2.0**-23) * 2.0**127), "float64": (2.0**-1074, math.inf)}

_MOST_WEIGHTS = 19_000  # what the reader of configs takes, less all other keys: a run's config must be readable again

SIZES = ("N", "D_in", "D_out")  # what a table says of a config
# What a config of a file may leave out, and what it has then. What they are worth: docs/your-data.md.
FILE_DEFAULTS = {
    "H": 150,
    "lr": "auto",
    "epochs": 150,
    "reduction": "mean",
    "batch_size": 64,
    "validation": 0.05,
}
PATIENCE = 30  # where `epochs` is left out, too


def _whole(value: object) -> object:
    """1e4 and 8.0 are whole numbers, as for JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=1, le=2**63 - 1), BeforeValidator(_whole)]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1), BeforeValidator(_whole)]
Threads = Annotated[int, Field(ge=1, le=1024), BeforeValidator(_whole)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class RandomData(Frozen):
    """x and y are both standard normal, as in the rTorch book: there is nothing to learn but the rows themselves."""

    source: Literal["random"]


class LinearData(Frozen):
    """x is standard normal and y = x weights' + noise, as in torch for R."""

    source: Literal["linear"]
    weights: list[Finite] | list[list[Finite]] = Field(
        description="what each input counts for: D_in numbers, or D_out lists of them"
    )
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1.0, description="the standard deviation of the normal noise on y"
    )

    @property
    def rows(self) -> list[list[float]]:
        """The weights as D_out lists, also where they were given as one list of numbers."""
        return [row for row in self.weights if isinstance(row, list)] or [
            [weight for weight in self.weights if not isinstance(weight, list)]
        ]


class Config(Frozen):
    """Everything a training depends on.

    Frozen: `load_config(path, key=value)` gives a changed one, checked. Raises pydantic's ValidationError when made by
    hand from wrong values.
    """

    N: Count = Field(description="rows of data; of a file those that are trained on")
    D_in: Count = Field(description="inputs, the columns of x")
    H: Count = Field(description="hidden units")
    D_out: Count = Field(description="outputs, the columns of y")
    lr: Literal["auto"] | Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        description="the step of gradient descent: p <- p - lr * gradient; `auto` follows the curvature"
    )
    epochs: Count = Field(description="passes over the data; each is one iteration, unless there is a batch_size")
    seed: Seed = Field(default=0, description="seed of the random data and of the initial weights")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:(0|[1-9][0-9]{0,3}))?)$")] = Field(
        default="cpu",
        description="where to compute; `auto` takes the first of cuda, mps and cpu that is there",
    )
    data: Annotated[RandomData | LinearData | FileData, Field(discriminator="source")] = Field(
        default=RandomData(source="random"), description="where x and y come from"
    )
    init: Literal["default", "normal"] = Field(
        default="default", description="initial weights: nn.Linear's own, or standard normal with zero biases"
    )
    loss: Literal["mse", "cross_entropy"] = Field(
        default="mse", description="the squared error of every output, or the cross entropy of classes"
    )
    reduction: Literal["sum", "mean"] = Field(
        default="sum", description="of the loss, over the elements of y, or the rows for classes; the book's is `sum`"
    )
    batch_size: Count | None = Field(
        default=None, description="rows to an update, or so; all of them, unless given: plain gradient descent"
    )
    validation: Annotated[float, Field(gt=0, lt=1)] | Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="rows of a file to hold out: a part of it, drawn with `seed`, or another file's path"
    )
    patience: Count | None = Field(
        default=None, description="epochs without a better validation loss to stop after; the best weights are kept"
    )
    dtype: Literal["float32", "float64"] = Field(default="float32", description="what is computed in")
    engine: Literal["auto", "autograd", "manual", "fused"] = Field(
        default="auto", description="who computes: autograd, its backward by hand, or the fewest operations"
    )
    form: Literal["auto", "primal", "dual"] = Field(
        default="auto", description="of the fused engine; `auto` takes the one with fewer operations"
    )
    threads: Literal["auto"] | Threads = Field(
        default="auto",
        description="CPU threads; `auto` takes as many as there is work for, at most all cores",
    )
    precision: Literal["full", "tf32"] = Field(
        default="full",
        description="of float32 matrix products on CUDA; `tf32` takes 10 of the 23 bits of what is multiplied",
    )
    cuda_graph: bool = Field(
        default=True, description="on CUDA the fused engine launches its kernels as a graph; the losses are the same"
    )
    log_every: Count = Field(default=1, description="the rows that are printed: every so many iterations")

    @property
    def unit(self) -> str:
        """What a row of the history is: an iteration; with batches an epoch."""
        return "epoch" if self.batch_size is not None else "iteration"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the history: the unit, the loss, and what else there is to tell of a row."""
        scores = ("loss", "accuracy") if self.loss == "cross_entropy" else ("loss",)
        validated = [f"val_{score}" for score in scores] if self.validation is not None else []
        return (self.unit, *scores, *validated, *(["lr"] if self.lr == "auto" else []))

    @property
    def shape(self) -> str:
        """The sizes: `64 x 1000 -> 100 -> 10`."""
        return f"{self.N} x {self.D_in} -> {self.H} -> {self.D_out}"

    @property
    def engine_name(self) -> str:
        """The engine, and the form where it has one: `fused (dual)`."""
        return f"{self.engine} ({self.form})" if self.engine == "fused" else self.engine

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if conflicts := list(self._conflicts()):
            message = "; ".join(f"{key}: {what}" for key, what in conflicts)
            raise PydanticCustomError("conflicts", "{message}", {"message": message, "conflicts": conflicts})
        return self

    def _conflicts(self) -> Iterator[tuple[str, str]]:
        """The keys that are right by themselves and wrong together with others, and what is wrong."""
        if isinstance(self.data, LinearData):
            rows = self.data.rows
            lengths = sorted({len(row) for row in rows})
            if (len(rows), *lengths) != (self.D_out, self.D_in):
                shape = f"{len(rows)} x {' or '.join(map(str, lengths))}"
                yield "data.weights", f"must be D_out x D_in = {self.D_out} x {self.D_in} numbers, not {shape}"
            elif sum(len(row) + 1 for row in rows) > _MOST_WEIGHTS:
                yield "data.weights", f"must be at most {_MOST_WEIGHTS} numbers and lists; for more, train on a file"
        if not isinstance(self.data, FileData):
            if self.loss == "cross_entropy":
                yield "loss", "cross_entropy goes with classes, which come from a file (data.source: file)"
            if self.validation is not None:
                yield "validation", "goes with rows from a file (data.source: file)"
        if self.patience is not None and self.validation is None:
            yield "patience", "goes with a validation set; set `validation`, such as 0.1"
        if self.form == "dual":
            for key in ("batch_size", "validation"):
                if getattr(self, key) is not None:
                    yield "form", f"dual goes with all rows at once and no validation, and {key} is given"
        if self.dtype == "float64" and self.device == "mps":
            yield "dtype", "float64 is not to be had on mps; take float32, or another device"
        if self.form != "auto" and self.engine in ("autograd", "manual"):
            yield "form", f"{self.form} goes with the fused engine only, and the engine is {self.engine}"
        elif self.form != "auto" and self.device == "mps":
            yield "form", f"{self.form} goes with the fused engine, which is not to be had on mps"
        if self.engine == "fused" and self.device == "mps":
            yield "engine", "fused is not to be had on mps; take auto, or another device"
        if self.precision == "tf32" and self.dtype == "float64":
            yield "precision", "tf32 goes with dtype float32, and the dtype is float64"
        smallest, largest = _RANGE[self.dtype]
        if self.lr != "auto" and not smallest <= self.lr <= largest:
            yield "lr", f"{self.lr:g} is out of the range of {self.dtype}"


KEYS = tuple(Config.model_fields)
SOURCES: dict[str, type[BaseModel]] = {"random": RandomData, "linear": LinearData, "file": FileData}


def flat(config: Config) -> Iterator[tuple[str, Any]]:
    """Every key and its value, in the order of the model; those inside `data` as `data.<key>`."""
    for key, value in config:
        if isinstance(value, BaseModel):
            yield from ((f"{key}.{inner}", item) for inner, item in value)
        else:
            yield key, value


def settled(config: Config) -> Config:
    """The config with paths that hold wherever it is read again."""
    if not isinstance(config.data, FileData):
        return config
    changed: dict[str, Any] = {"data": config.data.model_copy(update={"path": str(Path(config.data.path).absolute())})}
    if isinstance(config.validation, str):
        changed["validation"] = str(Path(config.validation).absolute())
    return config.model_copy(update=changed)


def document(config: Config) -> str:
    """The config as a YAML file: a key a line, its value as JSON, which is YAML too."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.model_dump().items())


def schema() -> dict[str, Any]:
    """The JSON Schema of a config file, by which editors complete and check one."""
    own = Config.model_json_schema()
    # A file gives the sizes, and what else is required otherwise has a default for files.
    file = {"properties": {"data": {"properties": {"source": {"const": "file"}}, "required": ["source"]}}}
    required = {"if": file | {"required": ["data"]}, "else": {"required": own.pop("required")}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | own | required
