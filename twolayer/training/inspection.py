"""A network taken apart at one point of its training: what goes forward, what comes back, and what a step changes."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor as Tensor  # for those who only show it
from torch import nn

from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.base import Data
from twolayer.engines.losses import Objective
from twolayer.hardware import threads
from twolayer.hardware.device import resolve_device

NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")


@dataclass(frozen=True, repr=False, eq=False)
class Inspection:
    """A network's numbers on rows x (n, D_in) with targets y (n, D_out).

    `pre` and `hidden` (n, H) are the hidden layer before and after ReLU, `output` is (n, D_out). The gradients are of
    the loss over these rows: `gradients` by autograd and `by_hand` by back-propagation that is written out, by the
    names of the parameters, and `signals` those at the output, the hidden layer and its pre-activations. `lr` is the
    learning rate of the next step.
    """

    config: Config
    model: nn.Sequential
    x: Tensor
    y: Tensor
    pre: Tensor
    hidden: Tensor
    output: Tensor
    loss: float
    gradients: dict[str, Tensor]
    by_hand: dict[str, Tensor]
    signals: dict[str, Tensor]
    lr: float

    def __repr__(self) -> str:
        return f"<Inspection of {self.config.shape}: loss {self.loss:.4g}, lr {self.lr:.4g}, {len(self.x)} rows>"

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return {name: parameter.detach() for name, parameter in self.model.named_parameters()}

    @property
    def after(self) -> dict[str, Tensor]:
        """The parameters after one step of gradient descent on these rows."""
        return {name: p.add(self.gradients[name], alpha=-self.lr) for name, p in self.parameters.items()}

    def loss_after(self) -> float:
        """The loss over the same rows after that step."""
        w1, b1, w2, b2 = self.after.values()
        loss_fn = nn.functional.mse_loss if self.config.loss == "mse" else nn.functional.cross_entropy
        with threads.set_up(self.config), torch.no_grad():
            output = torch.addmm(b2, torch.addmm(b1, self.x, w1.t()).clamp(min=0), w2.t())
            return float(loss_fn(output, self.y, reduction=self.config.reduction))

    @property
    def active(self) -> Tensor:
        """The number of rows for which each hidden unit is above zero, (H,)."""
        return (self.hidden > 0).sum(0)

    @property
    def dead(self) -> list[int]:
        """The hidden units, numbered from 0, that are zero for every row."""
        return torch.nonzero(self.active == 0).flatten().tolist()

    @property
    def always_on(self) -> list[int]:
        """The hidden units, numbered from 0, that are above zero for every row."""
        return torch.nonzero(self.active == len(self.x)).flatten().tolist()

    @staticmethod
    def difference(a: Tensor, b: Tensor) -> float | None:
        """The largest absolute difference of two tensors; None where both have the same bits."""
        a, b = a.cpu(), b.cpu()
        return None if torch.equal(a, b) else float((a.double() - b.double()).abs().max())

    def differences(self) -> dict[str, float | None]:
        """The largest difference between each gradient and that by hand; None where both have the same bits."""
        return {name: self.difference(gradient, self.by_hand[name]) for name, gradient in self.gradients.items()}


def inspect(model: nn.Sequential, data: Data, config: Config, lr: float) -> Inspection:
    """Take a network apart on its training rows: all, or as many as one part of a training has.

    `config` has its threads resolved. Raises DeviceError.
    """
    rows = selection.part_rows(config.H, len(data.x))
    x, y, objective = data.x[:rows], data.y[:rows], Objective.of(config)
    is_mse = objective.loss == "mse"
    model = copy.deepcopy(model)  # which may be trained on
    loss_fn = (nn.MSELoss if is_mse else nn.CrossEntropyLoss)(reduction=objective.reduction)
    with threads.set_up(config):
        with torch.enable_grad():
            loss = loss_fn(model(x), y if is_mse else y.argmax(1))
            gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            w1, b1, w2, b2 = model.parameters()
            pre = torch.addmm(b1, x, w1.t())
            hidden = pre.clamp(min=0)
            output = torch.addmm(b2, hidden, w2.t())
            # Back-propagation: from the output to the input.
            at_output = gradient_at_output(output, y, objective)
            at_hidden = at_output @ w2
            at_pre = at_hidden.masked_fill(hidden <= 0, 0)
            by_hand = (at_pre.t() @ x, at_pre.sum(0), at_output.t() @ hidden, at_output.sum(0))
    signals = {"output": at_output, "hidden": at_hidden, "pre-activation": at_pre}
    return Inspection(
        config, model, x, y, pre, hidden, output, loss.item(), dict(zip(NAMES, gradients, strict=True)),
        dict(zip(NAMES, by_hand, strict=True)), signals, lr,
    )  # fmt: skip


def gradient_at_output(output: Tensor, y: Tensor, objective: Objective) -> Tensor:
    """The gradient of the loss at the output: 2 (output - y), or softmax(output) - y; for a mean over its count."""
    numerator, denominator = objective.gradient_scale(*output.shape)
    if objective.loss == "mse":
        return (output - y) * (numerator / denominator)
    # The same as (softmax(output) - y) / denominator, rounded as autograd rounds it.
    at_log_p = y * (-numerator / denominator)
    return torch.ops.aten._log_softmax_backward_data(at_log_p, output.log_softmax(1), 1, output.dtype)  # type: ignore[no-any-return]


def moved(found: Inspection, device: str) -> Inspection:
    """The same taken apart on another device. Raises DeviceError where it is not available."""
    device = resolve_device(device, found.config.dtype)
    config = found.config.model_copy(update={"device": device})
    model = copy.deepcopy(found.model).to(device)
    return inspect(model, Data(found.x.to(device), found.y.to(device)), config, found.lr)


def lines_of(tensor: Tensor, width: int) -> list[str]:
    """The tensor as PyTorch prints it, in lines of at most about `width` characters; a large one in short."""
    before = torch._tensor_str.PRINT_OPTS.linewidth  # there is no public way to read it
    torch.set_printoptions(linewidth=width)  # type: ignore[no-untyped-call]
    try:
        return str(tensor.detach()).split("\n")
    finally:
        torch.set_printoptions(linewidth=before)  # type: ignore[no-untyped-call]
