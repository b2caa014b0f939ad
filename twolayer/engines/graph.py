"""CUDA graphs: kernels launched together, for a fraction of what it costs to launch them one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Captured:
    """A function of no arguments that works on fixed buffers on a GPU, replayed as a CUDA graph.

    The first call runs it as it is, which also makes what its kernels need (handles, workspaces) and may not be made
    while a graph is captured. The second call captures it; that call and all later ones replay the graph. The kernels
    and their order are the same in either way, and so is every bit of what they compute.
    """

    def __init__(self, function: Callable[[], object], device: torch.device) -> None:
        self.function, self.device = function, device
        self.is_warm = False
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Do what the function does."""
        with torch.cuda.device(self.device):
            if self.graph is not None:
                self.graph.replay()
            elif self.is_warm:
                graph = torch.cuda.CUDAGraph()
                # A stream of this device: the one that PyTorch would take is the first device's for ever.
                with torch.cuda.graph(graph, stream=torch.cuda.Stream(self.device)):  # type: ignore[no-untyped-call]
                    self.function()
                self.graph = graph
                graph.replay()
            else:
                self.function()
                self.is_warm = True
