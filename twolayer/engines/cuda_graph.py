"""CUDA graphs: kernels launched together, for a fraction of what it costs to launch them one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Graph:
    """Does a function that works on fixed buffers on a GPU, always the same, by replaying its kernels.

    The first call runs the function as it is, which also makes what its kernels need (handles, workspaces) and may not
    be made while a graph is captured. The second call captures it; that call and all later ones replay the graph. The
    kernels and their order are the same in either way, and so is every bit of what they compute.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.is_warm = device, False
        self.graph: torch.cuda.CUDAGraph | None = None

    def reset(self) -> None:
        """The function is another from now on: capture it anew."""
        self.graph = None

    def __call__(self, function: Callable[[], object]) -> None:
        """Do what the function does. It is not kept: it may well hold who holds this graph."""
        with torch.cuda.device(self.device):
            if self.graph is not None:
                self.graph.replay()
            elif self.is_warm:
                graph = torch.cuda.CUDAGraph()
                # A stream of this device: the one that PyTorch would take is the first device's for ever.
                stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
                # The first capture makes things for the whole process, which must not be those of inference alone.
                with torch.inference_mode(False), torch.no_grad(), torch.cuda.graph(graph, stream=stream):
                    function()
                self.graph = graph
                graph.replay()
            else:
                function()
                self.is_warm = True
