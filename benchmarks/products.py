"""Matrix products by MKL and by oneDNN: what PyTorch's `mm` takes, and what its operator for fused layers takes.

    python benchmarks/products.py [rounds] [--json PATH]

GFLOP/s of the products of a training, float32, medians of interleaved rounds at one thread and at all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import harness
import torch
from torch import Tensor

from twolayer.hardware.threads import cores

SHAPES = [(64, 1000, 100), (100, 3, 32), (4096, 1024, 1024), (1024, 512, 512), (50000, 20, 64), (8192, 256, 256)]
SECONDS = 0.05  # minimum per measurement


def rate(product: Callable[[], Tensor], operations: int) -> float:
    """GFLOP/s of a product."""
    count, seconds = 1, 0.0
    product()
    while seconds < SECONDS:
        count *= 2
        start = time.perf_counter()
        for _ in range(count):
            product()
        seconds = time.perf_counter() - start
    return operations * count / seconds / 1e9


def products(N: int, D_in: int, H: int) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """The forward product X W' and the gradient's G' X, by both libraries."""
    x, w, g = torch.randn(N, D_in), torch.randn(H, D_in), torch.randn(N, H)
    out, grad = torch.empty(N, H), torch.empty(H, D_in)
    x_t, g_t = x.t().contiguous(), g.t().contiguous()

    def onednn(a: Tensor, b: Tensor) -> Tensor:
        """A B', as a layer without bias and without an activation."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
        return result

    return {
        "x w'": {
            "mm": lambda: torch.mm(x, w.t(), out=out),
            "mm, new memory": lambda: torch.mm(x, w.t()),
            "oneDNN": lambda: onednn(x, w),
        },
        "g' x": {
            "mm": lambda: torch.mm(g.t(), x, out=grad),
            "mm, new memory": lambda: torch.mm(g.t(), x),
            "oneDNN": lambda: onednn(g_t, x_t),  # both transposed beforehand, which a training would have to do
        },
    }


def main() -> None:
    """Measure and print the table."""
    options = harness.options(__doc__ or "", rounds=7)
    print(f"PyTorch computes with {torch.backends.cpu.get_cpu_capability()}\n")
    print("| N x D_in x H | product | threads | mm | mm, new memory | oneDNN | oneDNN / mm |")
    print("|---|---|---|---|---|---|---|")
    results = []
    for threads in dict.fromkeys([1, cores()]):
        torch.set_num_threads(threads)
        for N, D_in, H in SHAPES:
            for name, programs in products(N, D_in, H).items():
                expected = programs["mm"]()
                for other in programs.values():
                    torch.testing.assert_close(other(), expected, rtol=1e-3, atol=1e-2)
                rates: dict[str, list[float]] = {program: [] for program in programs}
                for _ in range(options.rounds):
                    for program, product in programs.items():
                        rates[program].append(rate(product, 2 * N * D_in * H))
                medians = [statistics.median(found) for found in rates.values()]
                ratio = statistics.median(a / b for a, b in zip(rates["oneDNN"], rates["mm"], strict=True))
                cells = " | ".join(f"{value:.4g}" for value in [*medians, ratio])
                print(f"| {N} x {D_in} x {H} | {name} | {threads} | {cells} |", flush=True)
                results.append({"shape": [N, D_in, H], "product": name, "threads": threads, "rates": rates})
    harness.save(options.json, {"capability": torch.backends.cpu.get_cpu_capability(), "results": results})


if __name__ == "__main__":
    main()
