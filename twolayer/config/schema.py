"""The config: its keys, their types and defaults, and the JSON schema."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from twolayer.config import yaml12
from twolayer.tables.options import FileData, Frozen, TablePath

# The largest and the smallest finite numbers above zero that a dtype holds (IEEE 754).
_RANGE = {"float32": (2.0**-149, (2 - 2.0**-23) * 2.0**127), "float64": (2.0**-1074, math.inf)}

_MAX_WEIGHTS = 19_000  # yaml12.MAX_VALUES less all other keys: the config of a run must be readable again

SIZES = ("N", "D_in", "D_out")  # a table gives these
# Defaults for a config that trains on a file. How good they are: docs/your-data.md.
FILE_DEFAULTS = {
    "H": 150,
    "lr": "auto",
    "epochs": 200,
    "reduction": "mean",
    "batch_size": 64,
    "validation": 0.15,
    "patience": 30,  # unless `validation` is null
    "average": 0.97,
}


def _whole(value: object) -> object:
    """1e4 and 8.0 are whole numbers, as in JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=1, le=2**63 - 1), BeforeValidator(_whole)]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1), BeforeValidator(_whole)]
Threads = Annotated[int, Field(ge=1, le=1024), BeforeValidator(_whole)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

_ALL_ROWS = ("batch_size", "validation", "average")  # null where an update is on all rows, and nothing else is computed


class RandomData(Frozen):
    """x and y are both standard normal, as in the rTorch book: the network can only memorise the rows."""

    source: Literal["random"]


class LinearData(Frozen):
    """x is standard normal and y = x weights' + noise, as in torch for R."""

    source: Literal["linear"]
    weights: list[Finite] | list[list[Finite]] = Field(
        description="the true weights: D_in numbers, or D_out lists of D_in numbers"
    )
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1.0, description="the standard deviation of the normal noise on y"
    )

    @property
    def rows(self) -> list[list[float]]:
        """The weights as D_out lists, also if they were given as one list of numbers."""
        return [row for row in self.weights if isinstance(row, list)] or [
            [weight for weight in self.weights if not isinstance(weight, list)]
        ]


class Config(Frozen):
    """Everything a training depends on.

    Frozen: `load_config(path, key=value)` returns a changed config, validated. `Config(...)` itself raises pydantic's
    ValidationError for wrong values.
    """

    N: Count = Field(description="rows of data; with a file, those that are trained on")
    D_in: Count = Field(description="inputs, the columns of x")
    H: Count = Field(description="hidden units")
    D_out: Count = Field(description="outputs, the columns of y")
    lr: Literal["auto"] | Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        description="learning rate: p <- p - lr * gradient; `auto` follows the curvature of the loss"
    )
    epochs: Count = Field(description="passes over the data; without a batch_size each is one iteration")
    seed: Seed = Field(
        default=0, description="seed of random data, of initial weights, and of the split and order of rows"
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:(0|[1-9][0-9]{0,3}))?)$")] = Field(
        default="cpu",
        description="where to compute; `auto` uses the first of cuda, mps and cpu that is available",
    )
    data: Annotated[RandomData | LinearData | FileData, Field(discriminator="source")] = Field(
        default=RandomData(source="random"), description="the source of x and y"
    )
    init: Literal["default", "normal"] = Field(
        default="default", description="initial weights: nn.Linear's own, or standard normal with zero biases"
    )
    loss: Literal["mse", "cross_entropy"] = Field(
        default="mse", description="the squared error, or the cross entropy of classes"
    )
    reduction: Literal["sum", "mean"] = Field(
        default="sum",
        description="how the loss is combined: over the elements of y, for classes over the rows; `sum` as in the book",
    )
    batch_size: Count | None = Field(
        default=None, description="batch size, approximate; default: all rows (plain gradient descent)"
    )
    validation: Annotated[float, Field(gt=0, lt=1)] | TablePath | None = Field(
        default=None,
        description="rows of a file to hold out: a part of them, drawn with `seed`; or another file",
    )
    patience: Count | None = Field(
        default=None,
        description="stop after this number of epochs without a better validation loss, and keep the best weights",
    )
    average: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="keep the exponential average of the weights over epochs, with this decay per epoch; `val_loss` is "
        "then its loss",
    )
    dtype: Literal["float32", "float64"] = Field(default="float32", description="floating-point type of the training")
    engine: Literal["auto", "autograd", "manual", "fused", "compiled"] = Field(
        default="auto",
        description="how gradients are computed: autograd, by hand, with the fewest operations, or compiled",
    )
    form: Literal["auto", "primal", "dual"] = Field(
        default="auto", description="form of the fused engine; `auto` uses the one with fewer operations"
    )
    threads: Literal["auto"] | Threads = Field(
        default="auto",
        description="CPU threads; `auto` uses as many as the problem size is worth, at most all cores",
    )
    parts: Threads | None = Field(
        default=None,
        description="compute in n parts, added up in a fixed order: the same bits on every number of ranks; "
        "default: 12 with `--ranks`, else whole",
    )
    split: Literal["auto", "units", "rows", "inputs"] = Field(
        default="auto",
        description="what the parts are of: hidden units, rows, or inputs (dual form); `auto` uses units or rows, "
        "whichever exchange less",
    )
    precision: Literal["full", "tf32"] = Field(
        default="full",
        description="precision of float32 matrix products on CUDA; `tf32` uses 10 of the 23 bits of each factor",
    )
    cuda_graph: bool = Field(
        default=True, description="on CUDA, the fused engine launches its kernels as a graph; the losses are the same"
    )
    log_every: Literal["auto"] | Count = Field(
        default="auto",
        description="print the loss every n iterations (with batches: epochs); `auto` prints all, or for a table "
        "about 30 on a terminal",
    )

    @property
    def unit(self) -> str:
        """What a row of the history stands for: an iteration; with batches an epoch."""
        return "epoch" if self.batch_size is not None else "iteration"

    @property
    def is_by_epoch(self) -> bool:
        """Whether something happens between two epochs, or within one: batches, a validation, the average."""
        return any(value is not None for value in (self.batch_size, self.validation, self.average))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the history: the unit, the loss, and what else this config records."""
        scores = ("loss", "accuracy") if self.loss == "cross_entropy" else ("loss",)
        validated = [f"val_{score}" for score in scores] if self.validation is not None else []
        return (self.unit, *scores, *validated, *(["lr"] if self.lr == "auto" else []))

    @property
    def weights(self) -> str:
        """Which weights are kept and validated: the last ones of an epoch, or their average."""
        return "last" if self.average is None else f"averaged over epochs (average: {self.average:g})"

    @property
    def shape(self) -> str:
        """The sizes: `64 x 1000 -> 100 -> 10`."""
        return f"{self.N} x {self.D_in} -> {self.H} -> {self.D_out}"

    @property
    def engine_name(self) -> str:
        """The engine, with its form and its parts if it has any: `fused (dual)`, `fused (dual, 12 parts of units)`."""
        kinds = {"auto": "parts", "units": "parts of units", "rows": "parts of rows", "inputs": "parts of inputs"}
        form = [self.form] if self.engine == "fused" else []
        parts = [f"{self.parts} {kinds[self.split]}"] if self.parts is not None else []
        return f"{self.engine} ({', '.join(form + parts)})" if form or parts else self.engine

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if conflicts := list(self._conflicts()):
            message = "; ".join(f"{key}: {what}" for key, what in conflicts)
            raise PydanticCustomError("conflicts", "{message}", {"message": message, "conflicts": conflicts})
        return self

    def _conflicts(self) -> Iterator[tuple[str, str]]:
        """Keys whose values are valid alone but not together with others, and what is wrong."""
        if isinstance(self.data, LinearData):
            rows = self.data.rows
            lengths = sorted({len(row) for row in rows})
            if (len(rows), *lengths) != (self.D_out, self.D_in):
                shape = f"{len(rows)} x {' or '.join(map(str, lengths))}"
                yield "data.weights", f"must be D_out x D_in = {self.D_out} x {self.D_in} numbers, not {shape}"
            elif sum(len(row) + 1 for row in rows) > _MAX_WEIGHTS:
                yield "data.weights", f"must be at most {_MAX_WEIGHTS} numbers and lists; for more, train on a file"
        if not isinstance(self.data, FileData):
            if self.loss == "cross_entropy":
                yield "loss", "cross_entropy requires classes, from a file (data.source: file)"
            if self.validation is not None:
                yield "validation", "requires a file (data.source: file)"
        if self.patience is not None and self.validation is None:
            yield "patience", "requires a validation set; set `validation`, such as 0.1"
        if self.form == "dual":
            for key in _ALL_ROWS:
                if getattr(self, key) is not None:
                    yield "form", f"dual requires all rows at once, no validation and no average, but {key} is set"
        if self.dtype == "float64" and self.device == "mps":
            yield "dtype", "float64 is not available on MPS; use float32 or another device"
        if self.form != "auto" and self.engine not in ("auto", "fused"):
            yield "form", f"{self.form} requires the fused engine, but the engine is {self.engine}"
        elif self.form != "auto" and self.device == "mps":
            yield "form", f"{self.form} requires the fused engine, which is not available on MPS"
        if self.engine == "fused" and self.device == "mps":
            yield "engine", "fused is not available on MPS; use auto or another device"
        if self.engine == "compiled" and self.device not in ("auto", "cpu"):
            yield "engine", f"compiled is for the CPU, but the device is {self.device}; use auto or another device"
        if self.precision == "tf32" and self.dtype == "float64":
            yield "precision", "tf32 requires dtype float32, but the dtype is float64"
        yield from self.conflicts_of_parts()
        smallest, largest = _RANGE[self.dtype]
        if self.lr != "auto" and not smallest <= self.lr <= largest:
            yield "lr", f"{self.lr:g} is outside the range of {self.dtype}"

    def conflicts_of_parts(self) -> Iterator[tuple[str, str]]:
        """Keys whose values are not valid together with `parts`, and what is wrong."""
        if self.parts is None:  # the split is then for `--ranks`
            return
        if self.engine not in ("auto", "fused", "compiled"):
            yield "parts", f"requires the fused or the compiled engine, but the engine is {self.engine}"
        if self.device == "mps":
            yield "parts", "requires the fused engine, which is not available on MPS"
        if self.threads not in ("auto", 1):
            yield "threads", "must be 1 or auto with parts: each is computed by one thread; for more cores use --ranks"
        if self.split in ("units", "inputs"):
            if self.engine == "compiled":
                yield "split", f"{self.split} requires the fused engine, but the engine is compiled"
            for key in _ALL_ROWS:
                if getattr(self, key) is not None:
                    yield "split", f"{self.split} requires all rows at once, no validation and no average: {key} is set"
        if self.split == "rows" and self.form == "dual":
            yield "split", "rows requires the primal form, but form is dual"
        if self.split == "inputs" and self.form == "primal":
            yield "split", "inputs requires the dual form, but form is primal"


KEYS = tuple(Config.model_fields)
SOURCES: dict[str, type[BaseModel]] = {"random": RandomData, "linear": LinearData, "file": FileData}


def flat(config: Config) -> Iterator[tuple[str, Any]]:
    """Every key with its value, in the order of `Config`; those inside `data` as `data.<key>`."""
    for key, value in config:
        if isinstance(value, BaseModel):
            yield from ((f"{key}.{inner}", item) for inner, item in value)
        else:
            yield key, value


def settled(config: Config) -> Config:
    """The config with absolute paths, so that it can be loaded from anywhere."""
    if not isinstance(config.data, FileData):
        return config
    changed: dict[str, Any] = {"data": config.data.model_copy(update={"path": str(Path(config.data.path).absolute())})}
    if isinstance(config.validation, str):
        changed["validation"] = str(Path(config.validation).absolute())
    return config.model_copy(update=changed)


def variant(values: Mapping[str, Any]) -> Config | None:
    """The config with these values, as `model_dump` gives them; None where they are not valid."""
    try:
        return Config.model_validate(values)
    except ValidationError:
        return None


def document(config: Config) -> str:
    """The config as the text of a YAML file: one line per key, its value as JSON, which is YAML as well."""
    return "".join(f"{key}: {yaml12.dump(value)}\n" for key, value in config.model_dump().items())


def schema() -> dict[str, Any]:
    """The JSON schema of a config file, with which editors complete and check it."""
    own = Config.model_json_schema()
    # A file (also one that does not say so) gives the sizes, and the other required keys have defaults for files.
    file = {"properties": {"data": {"properties": {"source": {"const": "file"}}}}}
    required = {"if": file | {"required": ["data"]}, "else": {"required": own.pop("required")}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | own | required
