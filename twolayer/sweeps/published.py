"""The losses that the tutorials of torch for R print every tenth iteration, of a seed that they do not name."""

from __future__ import annotations

from dataclasses import dataclass

from twolayer.config import loading
from twolayer.config.schema import Config, flat

# What may differ.
_ANY = {"seed", "device", "engine", "form", "threads", "parts", "split", "precision", "cuda_graph", "log_every"}
_ANY |= {"epochs"}
_SCRATCH = (
    283.2281, 184.7813, 148.6949, 132.085, 122.7631, 116.8454, 112.5663, 109.0198, 106.0655, 103.6448,
    101.5424, 99.66808, 97.93629, 96.41391, 95.0442, 93.81817, 92.76872, 91.68913, 90.63338, 89.64046,
)  # fmt: skip
_MODULES = (
    229.4971, 180.9762, 147.2483, 124.2533, 109.2876, 100.0198, 94.53094, 91.27599, 89.28571, 87.99605,
    87.11208, 86.47411, 85.99896, 85.62224, 85.30872, 85.05437, 84.83028, 84.63102, 84.4514, 84.28427,
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A published curve: the tutorial's name, and its losses by iteration."""

    name: str
    losses: dict[int, float]


_CURVES = {
    name: Published(f'torch for R, "{title}"', dict(zip(range(10, 201, 10), losses, strict=True)))
    for name, title, losses in (
        ("scratch", "Neural network from scratch", _SCRATCH),
        ("modules", "Using torch modules", _MODULES),
    )
}


def curve_of(config: Config) -> Published | None:
    """The published curve of a training with this config, whatever its seed is; None where there is none."""
    for name, published in _CURVES.items():
        if _problem(config) == _problem(loading.resolve(name, environment={}, read=False).config):
            return published
    return None


def _problem(config: Config) -> dict[str, object]:
    """What is computed: all keys but those that change the last digits, the seed, and how long it takes."""
    return {key: value for key, value in flat(config) if key not in _ANY}
