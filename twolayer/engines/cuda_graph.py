"""CUDA graphs: kernels launched together, at a fraction of the cost of launching them one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Graph:
    """Captures a function as a CUDA graph; the first call warms up, the second captures, later ones replay.

    The function must always be the same, on fixed buffers on a GPU. The first call runs it directly, which also creates
    what its kernels need (handles, workspaces) and may not be created during a capture. The kernels and their order are
    the same either way, and so is every bit of the result.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.is_warm = device, False
        self.graph: torch.cuda.CUDAGraph | None = None

    def reset(self) -> None:
        """Capture again at the next call: the function has changed."""
        self.graph = None

    def __call__(self, function: Callable[[], object]) -> None:
        """Run the function, by replay if it has been captured. It is not stored, to avoid a reference cycle."""
        with torch.cuda.device(self.device):
            if self.graph is not None:
                self.graph.replay()
            elif self.is_warm:
                graph = torch.cuda.CUDAGraph()
                # A stream of this device: PyTorch's default for captures always belongs to the first device used.
                stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
                # The first capture creates state for the whole process, which must not consist of inference tensors.
                with torch.inference_mode(False), torch.no_grad(), torch.cuda.graph(graph, stream=stream):
                    function()
                self.graph = graph
                graph.replay()
            else:
                function()
                self.is_warm = True
