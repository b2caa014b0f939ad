"""Known answers: numbers that are known before this machine computes them."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Iterator, Sequence
from itertools import count

import torch
from torch import Tensor

from twolayer.hardware import threads as cpu_threads
from twolayer.training import inspection
from twolayer.training.doctor import book, problems
from twolayer.training.doctor.book import Array
from twolayer.training.doctor.finding import Finding, attempted, judged
from twolayer.training.doctor.known_product import KnownProduct
from twolayer.training.doctor.problems import Make, Problem, Trace

COMPARED = 100  # iterations that are compared with numpy, on a problem of odd sizes
SMALL = {"N": 45, "D_in": 37, "H": 27, "D_out": 3, "lr": 1e-3}

# How far a loss or a weight may be from numpy's in float64, relative to the largest weight of its tensor, and how far
# gradients by hand and by autograd, and products in float32 and in float64, may be from one another. docs/doctor.md has
# what was measured, and where.
BOUNDS = {"float32": 1e-4, "float64": 1e-10}
GRADIENT_BOUNDS = {"float32": 1e-5, "float64": 1e-12}
PRECISION_BOUND = 1e-5


def known_answers(device: str) -> Iterator[Finding]:
    """All known answers on this device. Raises DeviceError."""
    yield from drawn()
    the_book = Problem.of(book.book(device=device))
    yield from products(device)
    yield from precision(the_book)
    for dtype in dtypes(device):
        yield from gradients(Problem.of(book.book(device=device, dtype=dtype)))
    yield from losses(the_book)
    for dtype in dtypes(device):
        yield from against_numpy(Problem.of(book.book(device=device, dtype=dtype, **SMALL)))


def dtypes(device: str) -> tuple[str, ...]:
    """The dtypes that a device has."""
    return ("float32",) if device == "mps" else ("float32", "float64")


def drawn() -> Iterator[Finding]:
    """The numbers that seed 0 draws: against the published ones, against numpy's, and their checksum."""
    config = book.book(device="cpu")
    problem = Problem.of(config)
    own = {"x": problem.data.x, "y": problem.data.y} | dict(problem.model.named_parameters())
    expected, digest, are_right = book.drawn(config), hashlib.sha256(), True
    for name, tensor in own.items():
        numbers = tensor.detach().numpy()
        digest.update(numbers.data)
        flat, other = numbers.reshape(-1), expected[name].reshape(-1)
        error = max(
            float(abs(flat - other).max()),
            *(abs(float(flat[index]) - value) for index, value in book.DRAWN[name].items()),
        )
        at = int(abs(flat - other).argmax())
        is_right = error <= book.DRAWN_WITHIN
        are_right = are_right and is_right
        note = f"number {at + 1:,} of {len(flat):,}" if not is_right else None
        values = (float(other[at]), float(flat[at]), error, book.DRAWN_WITHIN)
        yield Finding("answers", f"drawn {name}", judged(is_right), None, None, *values, note=note)
    if are_right:
        yield _checksum(digest.hexdigest())


def _checksum(digest: str) -> Finding:
    """The checksum beside the one on record. Other last bits are no wrong numbers: all were right to 1e-5."""
    version, capability = ".".join(torch.__version__.split(".")[:2]), torch.backends.cpu.get_cpu_capability()
    known = book.CHECKSUMS.get((version, capability, platform.machine()))
    where = f"PyTorch {version}, {capability}, {platform.machine()}"
    if known == digest:
        return Finding("answers", "drawn bits", "right", expected=known, got=digest, note=f"those of {where}")
    note = f"no record for {where}" if known is None else f"other last bits than {where} draws elsewhere"
    return Finding("answers", "drawn bits", "no record", expected=known, got=digest, note=note)


def products(device: str) -> Iterator[Finding]:
    """A product of whole numbers, of which every bit is known, at one thread and at all."""
    product = KnownProduct(device, 512)
    for threads in dict.fromkeys((1, cpu_threads.cores() if device == "cpu" else 1)):
        with cpu_threads.set_up(book.book(device=device, threads=threads)):
            wrong = product.wrong()
        name = f"product of whole numbers, {threads} thread{'s' * (threads > 1)}"
        if wrong is None:
            yield Finding("answers", name, "right")
        else:
            yield Finding("answers", name, "wrong", expected=wrong.expected, got=wrong.got, note=wrong.place)


def precision(problem: Problem) -> Iterator[Finding]:
    """Whether products of float32 have the precision of float32, and not that of TF32 or bfloat16."""
    x, (w1, *_) = problem.data.x, problem.model.parameters()
    with cpu_threads.set_up(problem.config), torch.no_grad():
        found = (x @ w1.t()).cpu().double()
    right = x.cpu().double() @ w1.detach().cpu().double().t()
    error = float((found - right).abs().max() / right.abs().max())
    status = judged(error <= PRECISION_BOUND)
    yield Finding("answers", "precision of float32 products", status, error=error, bound=PRECISION_BOUND)


def gradients(problem: Problem) -> Iterator[Finding]:
    """The gradients by hand against those by autograd, by parameter."""
    config, bound = problem.config, GRADIENT_BOUNDS[problem.config.dtype]
    found = inspection.inspect(problem.model, problem.data, config, float(config.lr))
    for name, by_hand in found.by_hand.items():
        by_autograd = found.gradients[name]
        error = _relative(by_hand, by_autograd)
        flat, other = by_hand.reshape(-1), by_autograd.reshape(-1)
        at = int((flat - other).abs().argmax())
        values = (float(other[at]), float(flat[at]), error, bound)
        yield Finding(
            "answers", f"gradient of {name}, {config.dtype}", judged(error <= bound), "by hand", None, *values
        )


def _relative(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest number; infinite if any is not finite."""
    error = float((one.double().cpu() - other.double().cpu()).abs().max())
    return error / float(other.double().abs().max()) if math.isfinite(error) else math.inf


def losses(problem: Problem) -> Iterator[Finding]:
    """The book's 500 losses by every engine and form, against those that the book published."""
    published = book.published_losses()
    for name, make in problem.engines().items():

        def own(make: Make = make, name: str = name) -> Iterator[Finding]:
            losses = problems.trace(make, problem, [len(published)]).losses.tolist()
            yield compare_losses(name, losses, published)

        yield from attempted("answers", own(), name)


def compare_losses(engine: str, own: Sequence[float], published: Sequence[float]) -> Finding:
    """Losses against the published ones, to three significant digits."""
    wrong = (t for t, loss, other in zip(count(1), own, published, strict=False) if not _agree(loss, other))
    first = next(wrong, None)
    pairs = zip(own, published, strict=True)
    error = max((abs(loss - other) / other if math.isfinite(loss) else math.inf for loss, other in pairs), default=0.0)
    if first is None:
        return Finding("answers", "the book's losses", "right", engine, error=error)
    values = (first, published[first - 1], own[first - 1], error)
    return Finding("answers", "the book's losses", "wrong", engine, *values)


def _agree(loss: float, other: float) -> bool:
    return math.isfinite(loss) and book.agrees_to_three_digits(loss, other)


def against_numpy(problem: Problem) -> Iterator[Finding]:
    """The losses and weights of every engine and form against numpy's in float64."""
    config, bound = problem.config, BOUNDS[problem.config.dtype]
    arrays: list[Array] = [parameter.detach().cpu().numpy() for parameter in problem.model.parameters()]
    x, y = problem.data.x.cpu().numpy(), problem.data.y.cpu().numpy()
    right, weights = book.descend(x, y, arrays, float(config.lr), COMPARED)
    for name, make in problem.engines().items():

        def compared(make: Make = make, name: str = name) -> Iterator[Finding]:
            own = problems.trace(make, problem, [COMPARED])
            yield _losses_against(own, right, name, f"numpy's losses, {config.dtype}", bound)
            yield _weights_against(own, weights, name, f"numpy's weights, {config.dtype}", bound)

        yield from attempted("answers", compared(), name)


def _losses_against(own: Trace, right: Sequence[float], engine: str, name: str, bound: float) -> Finding:
    errors = [abs(loss - other) / other for loss, other in zip(own.losses.tolist(), right, strict=True)]
    error = max(errors) if all(map(math.isfinite, errors)) else math.inf
    first = next((t for t, one in enumerate(errors) if not one <= bound), None)
    if first is None:
        return Finding("answers", name, "right", engine, error=error, bound=bound)
    values = (first + 1, right[first], float(own.losses[first]), error, bound)
    return Finding("answers", name, "wrong", engine, *values)


def _weights_against(own: Trace, right: Sequence[Array], engine: str, name: str, bound: float) -> Finding:
    pairs = [(tensor, torch.from_numpy(other)) for tensor, other in zip(own.parameters, right, strict=True)]
    errors = [_relative(tensor, other) for tensor, other in pairs]
    error = max(errors)
    if error <= bound:
        return Finding("answers", name, "right", engine, error=error, bound=bound)
    which = errors.index(error)
    tensor, other = (each.double().reshape(-1) for each in pairs[which])
    at = int((tensor - other).abs().argmax())
    values = (COMPARED, float(other[at]), float(tensor[at]), error, bound)
    return Finding("answers", name, "wrong", engine, *values, note=inspection.NAMES[which])
