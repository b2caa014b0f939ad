"""Whose variables make a process one of several, and whose do not."""

from __future__ import annotations

import pytest

from twolayer.errors import RankError
from twolayer.hardware.launchers import Place, first_host, place

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "hosta", "MASTER_PORT": "29500"}
MPIRUN = {f"OMPI_COMM_WORLD_{key}": value for key, value in (("RANK", "1"), ("SIZE", "2"), ("LOCAL_RANK", "1"))}
MPIRUN |= {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
BATCH = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "1"}
STEP = {"SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NODELIST": "gpu[07-08,11]"}
STEP |= {"SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_PROCID": "2"}


def test_torchrun_gives_a_place() -> None:
    assert place(TORCHRUN | {"LOCAL_WORLD_SIZE": "2"}) == Place(3, 4, 1, 2, "", ("hosta", 29500))
    found = place(TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "True"})
    assert found is not None
    assert found.is_hosted


@pytest.mark.parametrize("missing", TORCHRUN)
def test_a_few_variables_that_an_earlier_job_has_left_do_not_count(missing: str) -> None:
    assert place({key: value for key, value in TORCHRUN.items() if key != missing}) is None
    assert place({missing: TORCHRUN[missing], "NODE_RANK": "1"}) is None
    assert place({}) is None


def test_one_process_is_none_of_several() -> None:
    assert place(TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}) is None


def test_mpirun_gives_a_place_but_no_address() -> None:
    assert place(MPIRUN | {"MASTER_ADDR": "a", "MASTER_PORT": "5"}) == Place(1, 2, 1, 2, "", ("a", 5))
    with pytest.raises(RankError, match=r"add -x MASTER_ADDR=HOST -x MASTER_PORT=29500"):
        place(MPIRUN)


def test_slurm_gives_a_place_in_a_step_of_several_tasks_alone() -> None:
    assert place(BATCH) is None  # the body of a batch script
    assert place(BATCH | STEP | {"SLURM_STEP_NUM_TASKS": "1"}) is None  # a shell of salloc
    found = place(BATCH | STEP)
    assert found is not None
    assert (found.rank, found.size, found.local_rank, found.local_size, found.address[0]) == (2, 3, 0, 1, "gpu07")
    assert 15_000 <= found.address[1] < 30_000
    assert place(BATCH | STEP | {"SLURM_STEP_ID": "3"}) != found  # another step, another port


@pytest.mark.parametrize(
    ("nodes", "host"), [("a", "a"), ("a,b", "a"), ("n[1-4]", "n1"), ("n[07,9],b", "n07"), ("x-y[001-002]", "x-y001")]
)
def test_the_first_host_of_a_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


@pytest.mark.parametrize("wrong", [{"RANK": "x"}, {"RANK": "4"}, {"RANK": "-1"}])
def test_wrong_numbers_are_an_error(wrong: dict[str, str]) -> None:
    with pytest.raises(RankError, match="launcher"):
        place(TORCHRUN | wrong)
