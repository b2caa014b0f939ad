"""How many processes train a sweep, and what its bar says."""

from __future__ import annotations

import pytest
import torch

from twolayer.cli import progress
from twolayer.cli.sweep_session import View, trainer_of
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.hardware import memory, threads
from twolayer.sweeps.points import Base, plan
from twolayer.system import available_memory
from twolayer.training.sweep_points import Job, Progress, Trainer
from twolayer.training.sweep_pool import Pool


def of(threads: int = 1, **values: object) -> Config:
    return load_config("modules", environment={}, threads=threads, engine="autograd", **values)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight cores and all the memory that is wanted."""
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.setattr(available_memory, "available", lambda: 2**60)
    return monkeypatch


def processes(configs: list[Config], jobs: int | None) -> int:
    trainer = trainer_of(Job("modules"), configs, jobs)
    return trainer.count if isinstance(trainer, Pool) else 1


def test_one_job_or_one_point_is_trained_in_this_process(machine: pytest.MonkeyPatch) -> None:
    assert isinstance(trainer_of(Job("modules"), [of()] * 9, 1), Trainer)
    assert isinstance(trainer_of(Job("modules"), [of()], 4), Trainer)
    assert isinstance(trainer_of(Job("modules"), [], None), Trainer)


def test_there_are_as_many_processes_as_are_asked_for_and_the_cores_allow(
    machine: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert processes([of()] * 9, 3) == 3
    assert processes([of()] * 9, None) == 8
    assert processes([of()] * 3, None) == 3
    assert processes([*[of()] * 8, of(threads=4)], None) == 2  # the largest number of threads counts
    assert processes([of(threads=8)] * 9, None) == 1
    assert capsys.readouterr().err == ""
    assert processes([of(threads=4)] * 9, 3) == 2
    assert capsys.readouterr().err == "--jobs 3: there is room for 2, with 4 threads a training\n"


def test_there_are_as_many_as_the_memory_allows(
    machine: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large = of(H=10**7)
    machine.setattr(available_memory, "available", lambda: int(2.5 * (memory.needed(large) + 160 * 2**20) / 0.9))
    assert processes([of(), large, large, of(), large], None) == 2
    assert capsys.readouterr().err == "there is memory for 2 trainings at a time, not for 5\n"
    assert processes([large] * 9, 2) == 2
    assert capsys.readouterr().err == ""


def test_on_a_gpu_there_are_as_many_as_its_memory_allows(
    machine: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.setattr(torch.cuda, "mem_get_info", lambda device: (2**31, 2**33))
    machine.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    machine.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    assert processes([of(device="cuda:0")] * 9, None) == 3
    assert capsys.readouterr().err == "there is memory on cuda:0 for 3 trainings at a time, not for 8\n"
    machine.setattr(available_memory, "available", lambda: 1)
    assert processes([of(device="cuda:0")] * 9, None) == 1
    assert capsys.readouterr().err == "there is memory for 1 training at a time, not for 8\n"


def test_the_bar_has_the_iterations_with_all_digits_and_parts_of_an_epoch() -> None:
    said = list[str]()

    class Bar(progress.Bar):
        def draw(self, done: int, text: str) -> None:
            said.append(text)

    points = plan(Base("modules", environment={}), [], "2")
    for done, loss in ((0.25, None), (12_345, 2.5), (1_234_567, 0.5)):
        View(points, "table", quiet=False).show(Progress(points.points[0], done, 2_000_000, loss), Bar(2))
    assert said == [
        "seed=0: 0.2 of 2000000",
        "seed=0: 12345 of 2000000, loss 2.5",
        "seed=0: 1234567 of 2000000, loss 0.5",
    ]
