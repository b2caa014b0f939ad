"""Whether this process is one of several that were started together, by the variables of who started it; no torch.

torchrun's, and those of mpirun and of a step of `srun`, which give no port.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from twolayer.errors import RankError

UNANSWERED = 75  # the exit code of a process that was started by the first one, and ends because another has failed
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """A process among those that train together: its rank of `size`, and among the `local_size` on its machine.

    They meet in a folder, `meeting`, or at the first one's `address`; `is_hosted` if the launcher itself listens there.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    meeting: str = ""
    address: tuple[str, int] = ("", 0)
    is_hosted: bool = False


def place(variables: Mapping[str, str]) -> Place | None:
    """The place that a launcher gave this process; None for a process that stands alone.

    A few of the variables, as an earlier job may have left them, do not count. Raises RankError where the launcher
    gives no address and the user none either, or a number is none.
    """
    try:
        found = _of_torchrun(variables) or _of_mpirun(variables) or _of_slurm(variables)
    except ValueError as error:
        raise RankError(f"the variables of the launcher are wrong: {error}") from None
    if found is None or found.size < 2:
        return None
    if not 0 <= found.rank < found.size:
        raise RankError(f"the launcher gives rank {found.rank} of {found.size}")
    return found


def _of_torchrun(variables: Mapping[str, str]) -> Place | None:
    if any(not variables.get(name) for name in TORCHRUN):
        return None
    rank, size, local = (int(variables[name]) for name in TORCHRUN[:3])
    local_size = int(variables.get("LOCAL_WORLD_SIZE") or size)
    address = variables["MASTER_ADDR"], int(variables["MASTER_PORT"])
    return Place(rank, size, local, local_size, "", address, variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True")


def _of_mpirun(variables: Mapping[str, str]) -> Place | None:
    names = [f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")]
    if any(name not in variables for name in names):
        return None
    rank, size, local_rank, local_size = (int(variables[name]) for name in names)
    address = variables.get("MASTER_ADDR"), variables.get("MASTER_PORT")
    if size > 1 and not all(address):
        raise RankError("mpirun does not say where the ranks meet; add -x MASTER_ADDR=HOST -x MASTER_PORT=29500")
    return Place(rank, size, local_rank, local_size, "", (address[0] or "", int(address[1] or 0)))


def _of_slurm(variables: Mapping[str, str]) -> Place | None:
    """The place in a step of several tasks; the body of a batch script and a shell of salloc are single processes."""
    names = ("SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST")
    if any(name not in variables for name in names):
        return None
    step, size, rank, local = (int(variables[name]) for name in names[:4])
    tasks = _tasks(variables.get("SLURM_STEP_TASKS_PER_NODE", str(size)))
    node = int(variables.get("SLURM_NODEID", 0))
    # All ranks must know the port before they meet: one of the job and the step, below those that systems give out.
    port = 15_000 + (31 * int(variables.get("SLURM_JOB_ID", 0)) + step) % 15_000
    host = variables.get("MASTER_ADDR") or first_host(variables["SLURM_STEP_NODELIST"])
    local_size = tasks[node] if node < len(tasks) else size
    return Place(rank, size, local, local_size, "", (host, int(variables.get("MASTER_PORT") or port)))


def _tasks(text: str) -> list[int]:
    """The tasks of each node: `2(x3),1` is 2, 2, 2, 1."""
    pairs = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in pairs for _ in range(int(times or 1))]


def first_host(nodes: str) -> str:
    """The first host of a list such as `node[03-05,9],gpu1`."""
    found = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", nodes)
    return found[1] + (found[2] or "") if found else nodes
