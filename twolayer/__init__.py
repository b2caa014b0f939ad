"""twolayer trains the two-layer network, Linear -> ReLU -> Linear, by plain gradient descent.

The public names are imported when they are first used: `import twolayer` is fast, and torch is imported only by what
computes with it.
"""

from __future__ import annotations

from twolayer.version import __version__

TYPE_CHECKING = False  # typing's own, without the import: type checkers take the name for True
if TYPE_CHECKING:
    from twolayer.config.loading import load_config
    from twolayer.config.schema import Config
    from twolayer.engines.base import Data
    from twolayer.errors import (
        ConfigError,
        DataError,
        DeviceError,
        DivergedError,
        Origin,
        Problem,
        RunError,
        TwolayerError,
    )
    from twolayer.exporters.functions import eject, export
    from twolayer.exporters.writing import Exported
    from twolayer.runs.history import Block
    from twolayer.training.inspecting import inspect
    from twolayer.training.inspection import Inspection
    from twolayer.training.loaded_run import LoadedRun, load
    from twolayer.training.loop import Fit, fit, train
    from twolayer.training.metrics import final_loss
    from twolayer.training.outcome import Training
    from twolayer.training.setup import build_model, load_data, prepare
    from twolayer.training.sweeping import sweep

__all__ = [
    "Block",
    "Config",
    "ConfigError",
    "Data",
    "DataError",
    "DeviceError",
    "DivergedError",
    "Exported",
    "Fit",
    "Inspection",
    "LoadedRun",
    "Origin",
    "Problem",
    "RunError",
    "Training",
    "TwolayerError",
    "__version__",
    "build_model",
    "eject",
    "export",
    "final_loss",
    "fit",
    "inspect",
    "load",
    "load_config",
    "load_data",
    "prepare",
    "sweep",
    "train",
]

_HOME = {
    "config.loading": ["load_config"],
    "config.schema": ["Config"],
    "engines.base": ["Data"],
    "errors": [
        "ConfigError",
        "DataError",
        "DeviceError",
        "DivergedError",
        "Origin",
        "Problem",
        "RunError",
        "TwolayerError",
    ],
    "exporters.functions": ["eject", "export"],
    "exporters.writing": ["Exported"],
    "runs.history": ["Block"],
    "training.inspecting": ["inspect"],
    "training.inspection": ["Inspection"],
    "training.loaded_run": ["LoadedRun", "load"],
    "training.loop": ["Fit", "fit", "train"],
    "training.metrics": ["final_loss"],
    "training.outcome": ["Training"],
    "training.setup": ["build_model", "load_data", "prepare"],
    "training.sweeping": ["sweep"],
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}


if not TYPE_CHECKING:  # else every misspelt name would be an Any

    def __getattr__(name: str) -> object:
        if name not in _MODULE:
            raise AttributeError(f"module 'twolayer' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"twolayer.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
