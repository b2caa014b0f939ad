"""The loop of scripts that train by epochs: batches, validation rows, patience, the average of the weights."""

from __future__ import annotations

from collections.abc import Mapping

from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.exporters.eject_source import fill, literal
from twolayer.tables.options import FileData

# `conditions|text`: see `eject_source.fill`.
_FUNCTIONS = """
batches      |def epoch_order(epoch):
batches      |    \"\"\"The rows in the order of an epoch, drawn from the seed and its number.\"\"\"
batches      |    digest = hashlib.sha256(f"$seed {epoch}".encode()).digest()
batches      |    seed = int.from_bytes(digest[:8], "little") >> 1
batches      |    return torch.randperm(N, generator=torch.Generator().manual_seed(seed))
batches      |
batches      |
classes      |def accuracy(output, y):
classes      |    \"\"\"The share of rows whose largest output is that of their class.\"\"\"
classes      |    return ((output.argmax(1) == y).sum().to(output) / len(y)).item()
classes      |
classes      |
             |def update(x, y, lr):
             |    \"\"\"A step of gradient descent on these rows; $returned before it.\"\"\"
             |    output = model(x)
             |    loss = loss_fn(output, y)
loop         |    model.zero_grad()
optim        |    optimizer.zero_grad()
             |    loss.backward()
loop         |    with torch.no_grad():
loop         |        for p in model.parameters():
loop         |            p.add_(p.grad, alpha=-lr)  # p -= lr * p.grad would round twice
optim auto   |    optimizer.param_groups[0]["lr"] = lr
optim        |    optimizer.step()
not-classes  |    return loss.item()
classes      |    return loss.item(), accuracy(output, y)
"""

_SETUP = """
             |loss_fn = nn.$loss_fn(reduction="$reduction")
auto drawn   |lr = LEARNING_RATES[0]
optim        |optimizer = torch.optim.SGD(model.parameters(), lr=lr)
average      |average, decay = copy.deepcopy(model), $decay  # of the weights over epochs
patience     |patience, best_loss, best_epoch = $patience, float("inf"), 0
parts        |count = $count  # batches in an epoch, whose sizes differ by 1 at most
parts        |sizes = [(i + 1) * N // count - i * N // count for i in range(count)]
"""

_LOOP = """
             |if hasattr(signal, "SIGPIPE"):  # `| head` ends it quietly; Windows has no such signal
             |    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
             |print("$columns")
not-patience |for epoch in range(epochs):
patience     |for epoch in range(epochs + 1):  # the weights of the last are validated, too
validation   |    with torch.no_grad():
validation not-classes|        val_loss = loss_fn($kept(x_val), y_val).item()
validation classes|        val_output = $kept(x_val)
validation classes|        val_loss = loss_fn(val_output, y_val).item()
patience     |    if val_loss < best_loss:
patience     |        best_loss, best_epoch = val_loss, epoch
patience     |        best_weights = copy.deepcopy($kept.state_dict())
patience     |    if epoch == epochs or epoch - best_epoch >= patience:
patience     |        break
parts        |    batches = torch.split(epoch_order(epoch), sizes)
parts not-auto|    scores = [update(x[rows], y[rows], lr) for rows in batches]
parts auto   |    scores = []
parts auto   |    for i, rows in enumerate(batches):
parts auto   |        lr = LEARNING_RATES.get(epoch * count + i, lr)
parts auto   |        scores.append(update(x[rows], y[rows], lr))
parts sum not-classes|    loss = sum(scores)
parts mean not-classes|    loss = sum(loss * (size / N) for loss, size in zip(scores, sizes))
parts sum classes|    loss = sum(loss for loss, _ in scores)
parts mean classes|    loss = sum(loss * (size / N) for (loss, _), size in zip(scores, sizes))
parts classes|    share = sum(right * (size / N) for (_, right), size in zip(scores, sizes))
batches not-parts|    rows = epoch_order(epoch)
not-parts auto|    lr = LEARNING_RATES.get(epoch, lr)
not-parts not-classes|    loss = update($rows, lr)
not-parts classes|    loss, share = update($rows, lr)
average      |    with torch.no_grad():
average      |        for mean, p in zip(average.parameters(), model.parameters()):
average      |            mean.lerp_(p, (1 - decay) / (1 - decay ** (epoch + 1)))
             |    print($row)
"""

_END = """
patience     |model.load_state_dict(best_weights)  # those that twolayer keeps
average not-patience|model.load_state_dict(average.state_dict())  # what twolayer keeps
"""


def flags_of(config: Config, style: str) -> set[str]:
    """The flags of the loop, and of the imports that it needs; `parts` are batches of which an epoch has several."""
    has_batches = config.batch_size is not None and config.batch_size < config.N
    given = {
        "batches": has_batches,
        "parts": has_batches and _count(config) > 1,
        "validation": config.validation is not None,
        "patience": config.patience is not None,
        "average": config.average is not None,
        "classes": config.loss == "cross_entropy",
        "auto": config.lr == "auto",
        "drawn": not isinstance(config.data, FileData),
        "copy": config.average is not None or config.patience is not None,
    }
    flags = {name for name, is_set in given.items() if is_set}
    return {style, config.reduction, *flags}


def imports(flags: set[str], *more: str) -> str:
    """The imports from the standard library."""
    names = {"signal", *more} | ({"copy"} & flags) | ({"hashlib"} if "batches" in flags else set())
    return "\n".join(f"import {name}" for name in sorted(names))


def functions(config: Config, style: str) -> str:
    """The functions that the loop calls."""
    return fill(_FUNCTIONS, flags_of(config, style), _values(config))


def loop(config: Config, style: str) -> str:
    """What comes after the data, the model and the functions."""
    flags, values = flags_of(config, style), _values(config)
    parts = (fill(part, flags, values) for part in (_SETUP, _LOOP, _END))
    return "\n\n".join(part for part in parts if part)


def _values(config: Config) -> Mapping[str, object]:
    names = {"accuracy": "share", "val_accuracy": "accuracy(val_output, y_val)"}
    row = ["{epoch + 1}", *("{" + names.get(name, name) + "}" for name in config.columns[1:])]
    return {
        "seed": config.seed,
        "reduction": config.reduction,
        "loss_fn": "MSELoss" if config.loss == "mse" else "CrossEntropyLoss",
        "returned": "their loss" if config.loss == "mse" else "their loss and accuracy",
        "kept": "average" if config.average is not None else "model",
        "patience": config.patience,
        "decay": literal(config.average),
        "count": _count(config),
        "rows": "x[rows], y[rows]" if "batches" in flags_of(config, "") else "x, y",
        "columns": ",".join(config.columns),
        "row": f'f"{",".join(row)}"',
    }


def _count(config: Config) -> int:
    """The number of batches in an epoch."""
    return selection.batches(config.N, config.batch_size or config.N)
