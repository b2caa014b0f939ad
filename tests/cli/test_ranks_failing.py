"""What goes wrong with several ranks has one message: disks, pipes, addresses, ports, signals before the first row."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.forking import Forked, clean_environment
from tests.helpers.ranks import Ended, Training, differences, free_port, launched, others, sets, train, wait
from twolayer.cli import rank_process
from twolayer.formatting import duration
from twolayer.hardware.launchers import Place
from twolayer.system import network
from twolayer.system.console import SIGNALS

SETS = sets("N=9", "D_in=7", "H=8", "D_out=2", "epochs=40", "lr=0.01")
TWO = [*SETS, "--ranks", "2", "-q"]


def same(one: Path, other: Path) -> bool:
    names = ("history.csv", "model.safetensors")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, *SETS, "--set", "parts=12", "-q", "--out", "run").code == 0
    return folder / "run"


@pytest.mark.parametrize(("inputs", "room"), [(7000, 20_000), (700, 10_000)], ids=["a part", "the model"])
def test_a_full_disk_ends_all_with_one_message_and_with_room_the_run_goes_on(
    inputs: int, room: int, tmp_path: Path
) -> None:
    wide = [*sets("N=9", f"D_in={inputs}", "H=8", "D_out=2", "epochs=20", "lr=1e-5", "form=primal"), "-q"]
    done = train(tmp_path, *wide, "--ranks", "2", "--out", "run", "--checkpoint-every", "7", file_size=room)
    assert (done.code, done.left) == (1, [])
    assert done.stderr.count("error: ") == 1
    assert "File too large" in done.stderr
    assert ("part-" in done.stderr) == (inputs == 7000)
    assert not list(tmp_path.rglob("*.part"))
    assert train(tmp_path, "--resume", "run", "--ranks", "3", "-q").code == 0
    assert train(tmp_path, *wide, "--set", "parts=12", "--out", "whole").code == 0
    assert same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("room", [1, 50, 150])  # for a file; of no directory, of no meeting, of no group
def test_no_room_where_the_ranks_meet_is_one_message(room: int, tmp_path: Path) -> None:
    done = train(tmp_path, *TWO, "--no-save", "--join-timeout", "5", file_size=room)
    assert (done.code, done.stdout, done.left) == (1, "", [])
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the ranks cannot meet: ")


@pytest.mark.parametrize("save", [["--out", "run"], ["--no-save"]], ids=["saved", "unsaved"])
def test_a_closed_pipe_ends_a_training_that_is_not_saved_and_no_other(
    save: list[str], tmp_path: Path, whole: Path
) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = train(tmp_path, *SETS, "--ranks", "2", *save, stdout=write)
    finally:
        os.close(write)
    assert (done.code, done.left, "error" in done.stderr) == (0, [], False), done.stderr
    if "--out" in save:
        assert same(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("rank", "address", "message"),
    [
        (
            1,
            "127.0.0.1",
            "rank 1 on {host}: cannot reach 127.0.0.1:{port} within 1 s; check MASTER_ADDR and MASTER_PORT",
        ),
        (1, "nowhere.invalid", "rank 1 on {host}: cannot reach nowhere.invalid:{port} within 1 s; check MASTER_ADDR"),
        (
            0,
            "nowhere.invalid",
            "rank 0 on {host}: cannot listen on nowhere.invalid:{port} within 1 s; check MASTER_ADDR",
        ),
        (0, "127.0.0.1", "rank 1 of 2 did not come within 1 s"),
    ],
)
def test_a_wrong_address_is_one_message_within_the_timeout(
    rank: int, address: str, message: str, tmp_path: Path
) -> None:
    port = free_port()
    words = [*SETS, "-q", "--no-save", "--join-timeout", "1"]
    done = train(tmp_path, *words, variables=launched(rank, 2, port, address))
    assert (done.code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: " + message.format(host=socket.gethostname(), port=port))


def test_rank_alone_is_one_process(tmp_path: Path, whole: Path) -> None:
    words = [*SETS, "--set", "parts=12", "-q", "--out", "run"]
    done = train(tmp_path, *words, variables={"RANK": "1", "NODE_RANK": "3", "WORLD_SIZE": "4"})
    assert done.code == 0
    assert same(tmp_path / "run", whole)


def together(folder: Path, *words: str, size: int = 2) -> list[Ended]:
    """A training of processes that were started by hand, each in a folder of its own."""
    port = free_port()
    with ExitStack() as stack:
        started = []
        for rank in range(size):
            (place := folder / str(rank)).mkdir(exist_ok=True)
            started.append(stack.enter_context(Training(place, *words, variables=launched(rank, size, port))))
        return [training.end() for training in started]


def test_processes_started_by_hand_train_once_and_a_completed_run_is_left_alone_by_all(
    tmp_path: Path, whole: Path
) -> None:
    words = [*SETS, "-q", "--resume-or-start", "run"]
    assert [done.code for done in together(tmp_path, *words)] == [0, 0]
    assert same(tmp_path / "0" / "run", whole)
    assert list((tmp_path / "1").iterdir()) == []  # the first alone writes
    for done in together(tmp_path, *words, size=3):
        assert (done.code, done.stderr.count("error")) == (0, 0), done.stderr


def beside(folder: Path, change: str, *words: str) -> list[tuple[int, str]]:
    """The exit codes and errors of two processes that were started by hand; the second one's program is changed."""
    program = f"import os, sys, time\n{change}\nfrom twolayer.cli.main import run\nraise SystemExit(run(sys.argv[1:]))"
    (changed := folder / "changed.py").write_text(program)
    port = free_port()
    first, second = (clean_environment(**launched(rank, 2, port)) for rank in (0, 1))
    with (
        Forked([changed, "train", *words], folder, second, python=True) as other,
        Forked(["train", *words], folder, first) as process,
    ):
        errors = [one.communicate()[1] for one in (process, other)]
        return list(zip((process.wait(), other.wait()), errors, strict=True))


@pytest.mark.parametrize("split", ["units", "inputs"])
def test_where_a_rank_does_not_have_the_run_folder_the_first_writes_and_reads_the_same_files(
    split: str, tmp_path: Path
) -> None:
    words = [*SETS, *sets(f"split={split}"), "-q", "--checkpoint-every", "25"]
    blind = "from twolayer.training import together\ntogether.open_announced = lambda text: None"
    saved = [(0, "saved; see: twolayer show run, twolayer report run\n"), (0, "")]
    assert beside(tmp_path, blind, *words, "--epochs", "25", "--out", "run") == saved
    whole = [*words, *sets("parts=12")]
    assert train(tmp_path, *whole, "--epochs", "25", "--out", "half").code == 0
    assert differences(tmp_path / "run", tmp_path / "half") == []
    assert beside(tmp_path, blind, "--resume", "run", "--epochs", "40", "-q") == saved
    assert train(tmp_path, *whole, "--out", "whole").code == 0
    assert same(tmp_path / "run", tmp_path / "whole")


LATE = """
from twolayer.hardware.distributed import Ranks
heard = Ranks.heard
Ranks.heard = lambda self, key: time.sleep(1) or heard(self, key)
"""
KILLED = """
import torch.distributed
torch.distributed.init_process_group = lambda *_, **more: os.kill(os.getpid(), 9)
"""


def test_one_that_is_late_to_hear_that_the_run_is_completed_has_exit_code_0(tmp_path: Path) -> None:
    words = [*SETS, "-q", "--resume-or-start", "run"]
    assert train(tmp_path, *words, "--set", "parts=12").code == 0
    assert beside(tmp_path, LATE, *words) == [(0, "run run is completed\n"), (0, "")]


def test_one_that_ends_while_the_group_is_made_is_not_waited_for_beyond_the_timeout(tmp_path: Path) -> None:
    for seconds in (2, 20, 200):  # on a busy machine the second may take longer to come at all
        first, second = beside(tmp_path, KILLED, *SETS, "-q", "--no-save", "--join-timeout", str(seconds))
        if "did not come" not in first[1]:
            break
    late = f"the others have not connected within {duration(seconds)}"
    assert first == (1, f"error: rank 0 on {socket.gethostname()}: {late}\n")
    assert second[0] == -signal.SIGKILL


def test_two_jobs_at_once_do_not_meet(tmp_path: Path, whole: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    with ExitStack() as stack:
        for folder in folders:
            folder.mkdir()
        jobs = [stack.enter_context(Training(folder, *TWO, "--out", "run")) for folder in folders]
        ends = [job.end() for job in jobs]
    assert [(done.code, done.left) for done in ends] == [(0, []), (0, [])]
    assert all(same(folder / "run", whole) for folder in folders)


def test_a_port_that_another_job_has_is_one_message(tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        done = train(tmp_path, *SETS, "-q", "--no-save", "--join-timeout", "2", variables=launched(0, 2, port))
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == f"error: rank 0 on {socket.gethostname()}: port {port} is in use; set another MASTER_PORT\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_rank_that_ends_before_the_others_have_come_is_told_at_once(number: int, tmp_path: Path) -> None:
    with Training(tmp_path, *TWO, "--no-save") as training:
        wait(lambda: others(tmp_path), training.process)
        training.signal(1, number)
        done = training.end()
    assert done.left == []
    assert done.stderr.count("error: ") == 1
    assert "rank 1" in done.stderr
    assert done.code in (1, 143)


@pytest.mark.parametrize(
    ("own", "there", "chosen"),
    [("127.0.1.1", "10.0.0.1", "eth7"), ("10.0.0.2", "10.0.0.1", None), ("127.0.1.1", "127.0.0.1", None)],
)
def test_a_name_that_leads_to_this_machine_alone_is_not_gloos(
    own: str, there: str, chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's 127.0.1.1; that it is so on real hosts is tested in namespaces (test_launched.py)."""
    monkeypatch.setattr(socket, "gethostbyname", lambda name: there if name == "hosta" else own)
    monkeypatch.setattr(network, "interface", lambda address: "eth7")
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: None)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    network.use_the_way_to("hosta", 1)
    assert os.environ.pop("GLOO_SOCKET_IFNAME", None) == chosen


def test_a_signal_after_a_rank_has_ended_ends_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher sends one to all processes as soon as the first has ended; what Python does at its exit went wrong."""
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def followed(signals: rank_process._Signals, *_: object, **__: object) -> int:
        signals.handle()
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        return 7

    monkeypatch.setattr(rank_process, "_followed", followed)
    try:
        assert rank_process.follow(Place(1, 2, 1, 2), 1.0, 1.0, quiet=False) == 7
        signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
