"""Scripts for drawn data: the training in five styles, as a reader of the tutorials would write it."""

from __future__ import annotations

from collections.abc import Mapping

from twolayer.config.schema import Config, LinearData
from twolayer.exporters import eject_epochs
from twolayer.exporters.eject_source import constant, fill, learning_rates, literal, paragraphs, place

# `conditions|text`: see `eject_source.fill`.
_START = """
             |$standard
             |
             |import torch
nn           |from torch import nn
             |
             |torch.set_num_threads($threads)  # with another number, sums are rounded otherwise
tf32         |torch.backends.cuda.matmul.fp32_precision = "tf32"
             |torch.manual_seed($seed)
"""

_SIZES = """
             |N, D_in, H, D_out = $N, $D_in, $H, $D_out
not-auto     |lr, epochs = $lr, $epochs
auto         |epochs = $epochs
"""

_DATA = """
not-linear   |# x and y are standard normal: there is nothing to learn but the rows themselves.
linear       |# y = x weights' + $factor; x and the noise are standard normal.
             |x = torch.randn(N, D_in)
             |y = torch.randn(N, D_out)
linear       |y = torch.addmm(y, x, torch.tensor(true_weights).t()$beta)
moved        |x, y = x.to($to), y.to($to)
"""

_MODEL = """
normal       |# The weights start standard normal, the biases at zero.
normal       |start = {"0.weight": torch.randn(H, D_in), "0.bias": torch.zeros(H)}
normal       |start |= {"2.weight": torch.randn(D_out, H), "2.bias": torch.zeros(D_out)}
             |model = nn.Sequential(
             |    nn.Linear(D_in, H),
             |    nn.ReLU(),
             |    nn.Linear(H, D_out),
             |)
normal       |model.load_state_dict(start)
moved        |model.to($to)
"""

_LOOP = """
             |loss_fn = nn.MSELoss(reduction="$reduction")
optim        |optimizer = torch.optim.SGD(model.parameters(), lr=$first_lr)
             |
             |if hasattr(signal, "SIGPIPE"):  # `| head` ends it quietly; Windows has no such signal
             |    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
             |print("iteration,loss")
             |for t in range(1, epochs + 1):
             |    # Forward pass, and the loss before this update.
             |    loss = loss_fn(model(x), y)
             |    print(f"{t},{loss.item()}")
             |
             |    # Backward pass: the gradient of the loss in every parameter.
loop         |    model.zero_grad()
optim        |    optimizer.zero_grad()
             |    loss.backward()
             |
auto         |    if t - 1 in LEARNING_RATES:
auto loop    |        lr = LEARNING_RATES[t - 1]
auto optim   |        optimizer.param_groups[0]["lr"] = LEARNING_RATES[t - 1]
loop         |    # p <- p - lr * gradient. (p -= lr * p.grad would round lr * p.grad first.)
loop         |    with torch.no_grad():
loop         |        for p in model.parameters():
loop         |            p.add_(p.grad, alpha=-lr)
optim        |    optimizer.step()
"""

_MANUAL = """
             |w1, b1, w2, b2 = (p.detach() for p in model.parameters())
             |
             |if hasattr(signal, "SIGPIPE"):  # `| head` ends it quietly; Windows has no such signal
             |    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
             |print("iteration,loss")
             |for t in range(1, epochs + 1):
             |    # Forward pass, and the loss before this update.
             |    h = torch.addmm(b1, x, w1.t()).clamp(min=0)  # (N, H): relu(x w1' + b1)
             |    residual = torch.addmm(b2, h, w2.t()) - y  # (N, D_out): prediction - y
             |    loss = (residual * residual).$reduction()
             |    print(f"{t},{loss.item()}")
             |
             |    # Backward pass, from the output to the input.
sum          |    grad_y = 2 * residual  # (N, D_out)
mean         |    grad_y = residual * (2 / (N * D_out))  # (N, D_out)
             |    grad_w2, grad_b2 = grad_y.t() @ h, grad_y.sum(0)
             |    grad_z = grad_y @ w2  # (N, H)
             |    grad_z[h == 0] = 0  # relu is off there
             |    grad_w1, grad_b1 = grad_z.t() @ x, grad_z.sum(0)
             |
auto         |    if t - 1 in LEARNING_RATES:
auto         |        lr = LEARNING_RATES[t - 1]
             |    # p <- p - lr * gradient. (p -= lr * gradient would round lr * gradient first.)
             |    w1.add_(grad_w1, alpha=-lr)
             |    b1.add_(grad_b1, alpha=-lr)
             |    w2.add_(grad_w2, alpha=-lr)
             |    b2.add_(grad_b2, alpha=-lr)
"""

_DUAL = """
             |w1, b1, w2, b2 = (p.detach() for p in model.parameters())
             |
             |# x never changes, so every update of w1 is a combination of its rows: the sum s of the
             |# steps at the pre-activations z says it all. With K = x x' + 1, z is z0 - K s.
             |K = (x.double() @ x.double().t() + 1).to(x)  # (N, N)
             |z0 = torch.addmm(b1, x, w1.t())  # (N, H): z before the first update
             |z, s = z0, torch.zeros_like(z0)
             |
             |if hasattr(signal, "SIGPIPE"):  # `| head` ends it quietly; Windows has no such signal
             |    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
             |print("iteration,loss")
             |for t in range(1, epochs + 1):
             |    h = z.clamp(min=0)
             |    residual = torch.addmm(b2, h, w2.t()) - y
             |    print(f"{t},{(residual * residual).$reduction().item()}")
             |
sum          |    grad_y = 2 * residual
mean         |    grad_y = residual * (2 / (N * D_out))
auto         |    if t - 1 in LEARNING_RATES:
auto         |        lr = LEARNING_RATES[t - 1]
             |    s += lr * (grad_y @ w2) * (z > 0)
             |    w2 -= lr * grad_y.t() @ h
             |    b2 -= lr * grad_y.sum(0)
             |    z = z0 - K @ s
             |
             |w1 -= s.t() @ x  # the first layer's weights, which nobody needed before
             |b1 -= s.sum(0)
"""

_SCRATCH_START = """
             |d_in = $D_in  # input dimensionality (number of input features)
             |d_out = $D_out  # output dimensionality (number of predicted features)
             |n = $N  # number of observations in training set
             |d_hidden = $H  # dimensionality of hidden layer
"""

_SCRATCH_WEIGHTS = """
             |# weights connecting input to hidden layer, and hidden to output layer: a row per unit
normal       |w1 = torch.randn(d_hidden, d_in)$to_call
normal       |w2 = torch.randn(d_out, d_hidden)$to_call
normal       |# hidden layer bias, output layer bias
normal       |b1 = torch.zeros(d_hidden)$to_call
normal       |b2 = torch.zeros(d_out)$to_call
not-normal   |w1 = torch.nn.init.kaiming_uniform_(torch.empty(d_hidden, d_in), a=5**0.5)
not-normal   |b1 = torch.empty(d_hidden).uniform_(-(d_in**-0.5), d_in**-0.5)  # hidden layer bias
not-normal   |w2 = torch.nn.init.kaiming_uniform_(torch.empty(d_out, d_hidden), a=5**0.5)
not-normal   |b2 = torch.empty(d_out).uniform_(-(d_hidden**-0.5), d_hidden**-0.5)  # output layer bias
not-normal moved|w1, b1, w2, b2 = (p.to($to) for p in (w1, b1, w2, b2))
"""

_SCRATCH = """
not-auto     |learning_rate = $lr
             |
             |if hasattr(signal, "SIGPIPE"):  # `| head` ends it quietly; Windows has no such signal
             |    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
             |print("iteration,loss")
             |for t in range(1, $epochs + 1):
             |    # Forward pass. (x.mm(w1.t()) + b1, in one operation, which rounds once.)
             |    h = torch.addmm(b1, x, w1.t())
             |    h_relu = h.clamp(min=0)
             |    y_pred = torch.addmm(b2, h_relu, w2.t())
             |    loss = (y_pred - y).pow(2).$reduction()
             |    print(f"{t},{loss.item()}")
             |
             |    # Backpropagation: the gradients of the loss with respect to each of these
sum          |    grad_y_pred = 2 * (y_pred - y)
mean         |    grad_y_pred = (y_pred - y) * (2 / (n * d_out))
             |    grad_w2 = grad_y_pred.t().mm(h_relu)
             |    grad_b2 = grad_y_pred.sum(dim=0)
             |    grad_h = grad_y_pred.mm(w2)
             |    grad_h[h <= 0] = 0
             |    grad_w1 = grad_h.t().mm(x)
             |    grad_b1 = grad_h.sum(dim=0)
             |
auto         |    if t - 1 in LEARNING_RATES:
auto         |        learning_rate = LEARNING_RATES[t - 1]
             |    # Update weights: w2 <- w2 - learning_rate * grad_w2, rounded once
             |    w2.add_(grad_w2, alpha=-learning_rate)
             |    b2.add_(grad_b2, alpha=-learning_rate)
             |    w1.add_(grad_w1, alpha=-learning_rate)
             |    b1.add_(grad_b1, alpha=-learning_rate)
"""


def script(config: Config, style: str, rates: Mapping[int, float] | None) -> str:
    """The script of a training on drawn data, without its docstring.

    `config` has its device and threads resolved. `rates` are the learning rates where `lr` is auto, by the number of
    updates before the first that they hold for.
    """
    flags, values = _given(config, style)
    data, constants = fill(_DATA, flags, values), _constants(config, rates)
    if style == "scratch":
        start = fill(_SCRATCH_START, flags, values)
        data = data.replace("(N, D_in)", "(n, d_in)").replace("(N, D_out)", "(n, d_out)")
        rest = [fill(_SCRATCH_WEIGHTS, flags, values), fill(_SCRATCH, flags, values)]
    elif config.is_by_epoch:
        start = fill(_SIZES, flags, values)
        functions = f"\n{eject_epochs.functions(config, style)}\n"
        rest = [fill(_MODEL, flags, values), functions, eject_epochs.loop(config, style)]
    else:
        start = fill(_SIZES, flags, values)
        rest = [fill(_MODEL, flags, values), fill({"manual": _MANUAL, "dual": _DUAL}.get(style, _LOOP), flags, values)]
    return paragraphs(fill(_START, flags, values), start, *constants, data, *rest)


def _given(config: Config, style: str) -> tuple[set[str], dict[str, object]]:
    """The flags and values of the templates."""
    given = {
        "nn": style != "scratch",
        "tf32": config.precision == "tf32" and config.device.startswith("cuda"),
        "linear": isinstance(config.data, LinearData),
        "moved": config.device != "cpu" or config.dtype != "float32",
        "normal": config.init == "normal",
    }
    flags = eject_epochs.flags_of(config, style) | {name for name, is_set in given.items() if is_set}
    to = place(config)
    noise = config.data.noise if isinstance(config.data, LinearData) else 1.0
    keys = ("N", "D_in", "H", "D_out", "epochs", "seed", "threads", "reduction")
    return flags, {
        **{key: getattr(config, key) for key in keys},
        "standard": eject_epochs.imports(flags),
        "lr": literal(config.lr),
        "first_lr": "LEARNING_RATES[0]" if config.lr == "auto" else "lr",
        "factor": "noise" if noise == 1 else f"{literal(noise)} noise",
        "beta": "" if noise == 1 else f", beta={literal(noise)}",
        "to": to,
        "to_call": f".to({to})" if to else "",
    }


def _constants(config: Config, rates: Mapping[int, float] | None) -> list[str]:
    found = [constant("true_weights", config.data.rows)] if isinstance(config.data, LinearData) else []
    return found + ([] if rates is None else [learning_rates(rates)])
