"""Tables as people have them, from the first command to a prediction, with the right values."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.processes import Run


def r2(twolayer: Run, run: str, table: str) -> float:
    done = twolayer("evaluate", run, table, "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout.splitlines()[0])["R2"]
    assert isinstance(value, float)
    return value


def trained(twolayer: Run, table: str, *options: str) -> str:
    """What is told at a training to the run `r` that must work, and the run's name."""
    done = twolayer("train", table, "--target", "y", "--quiet", "--out", f"r-{table}", *options)
    assert done.returncode == 0, done.stderr
    return done.stderr


# --- a column of numbers or dates in each of the notations that were seen: y = 3 x, but for rounding

DRESSES: dict[str, Callable[[int], str]] = {
    "dollars": lambda n: f"${n / 100:.2f}",
    "euros": lambda n: f"{n / 100:.2f} €".replace(".", ","),
    "share": lambda n: f"{n // 10}%",
    "unit": lambda n: f"{n} kg",
    "american": lambda n: f'"{n + 1000:,}"' if n > 500 else f'"{n},000,000"',
    "german": lambda n: f'"{n / 100:,.2f}"'.replace(",", "#").replace(".", ",").replace("#", "."),
    "minus": lambda n: f"\u2212{n}" if n % 2 else f"({n})",
    "day first": lambda n: f"{n % 28 + 1}.{n % 12 + 1:02d}.{1990 + n // 28}",
    "month first": lambda n: f"{n % 12 + 1}/{n % 28 + 1}/{1990 + n // 28}",
    "named": lambda n: f"{n % 28 + 1} Mar {1990 + n // 28}",
    "clock": lambda n: f"{n // 60 % 24:02d}:{n % 60:02d}",
}


def value(dress: str, n: int) -> float:
    """What the cell is worth, up to a linear law (of dates only the year counts here)."""
    if dress in ("day first", "month first", "named"):
        return 1990 + n // 28
    if dress == "american":
        return n + 1000 if n > 500 else n * 1e6
    if dress == "minus":
        return -n
    if dress == "clock":
        return n % 1440
    return n // 10 if dress == "share" else n


@pytest.mark.sample(6)
@pytest.mark.parametrize("dress", DRESSES)
def test_a_number_or_a_date_in_any_dress_is_used_as_what_it_is(dress: str, tmp_path: Path, twolayer: Run) -> None:
    choose = random.Random(5)
    numbers = [choose.randrange(1, 1000) for _ in range(300)]
    rows = "".join(f"{DRESSES[dress](n)};{3 * value(dress, n)}\n" for n in numbers)
    (tmp_path / "t.csv").write_text(f"x;y\n{rows}", encoding="utf-8")
    told = trained(twolayer, "t.csv", "--epochs", "60")
    assert "read as " in told
    assert r2(twolayer, "r-t.csv", "t.csv") > 0.98


def test_thousands_that_could_be_decimals_are_refused_with_both_options(tmp_path: Path, twolayer: Run) -> None:
    choose = random.Random(1)
    for mark, name in ((",", "t.tsv"), (".", "u.tsv")):
        numbers = [choose.randrange(300, 3000) for _ in range(200)]
        rows = "".join(f"{n:,}\t{100 * n}\n".replace(",", mark) for n in numbers)
        (tmp_path / name).write_text(f"x\ty\n{rows}")
        done = twolayer("train", name, "--target", "y", "--no-save")
        assert done.returncode == 1
        assert f"--set data.thousands={mark} (for " in done.stderr
        assert f"--set data.decimal={mark} (for " in done.stderr
        trained(twolayer, name, "--set", f"data.thousands={mark}")
        assert r2(twolayer, f"r-{name}", name) > 0.98


def test_a_target_in_dollars_is_a_number_and_one_with_a_few_words_is_refused(tmp_path: Path, twolayer: Run) -> None:
    rows = "".join(f"{i * 7 % 31},${i % 9 + 1}00\n" for i in range(60))
    (tmp_path / "t.csv").write_text(f"x,y\n{rows}")
    done = twolayer("data", "t.csv", "--target", "y")
    assert (done.returncode, "9 whole numbers are predicted as a quantity" in done.stderr) == (0, True)
    rows = "".join(f"{i * 7 % 31},{(1, 2, 3, 4, '5+')[i * 3 % 5]}\n" for i in range(60))
    (tmp_path / "u.csv").write_text(f"x,y\n{rows}")
    done = twolayer("train", "u.csv", "--target", "y", "--no-save")
    assert (done.returncode, "target y looks like numbers, but" in done.stderr) == (1, True)
    command = next(line for line in done.stderr.splitlines() if line.startswith("this works: ")).split()[3:]
    assert twolayer(*command, "--epochs", "2", "--no-save").returncode == 0
    done = twolayer("data", "u.csv", "--target", "y", "--classes")
    assert (done.returncode, "target, 5 classes" in done.stdout) == (0, True)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["", "Unnamed: 0", "id"])
def test_a_row_number_is_no_input(name: str, tmp_path: Path, twolayer: Run) -> None:
    choose = random.Random(2)
    rows = [f"{i},{choose.gauss():.3f},{choose.gauss():.3f},{'abc'[i // 50]}\n" for i in range(150)]
    (tmp_path / "t.csv").write_text(f"{name},n1,n2,y\n{''.join(rows)}")
    told = trained(twolayer, "t.csv", "--epochs", "20")
    shown = name or '""'
    assert f"left out: {shown} (counts the rows); to use one, name it in data.inputs" in told
    done = twolayer("evaluate", "r-t.csv", "t.csv", "--format", "jsonl")
    assert json.loads(done.stdout.splitlines()[0])["accuracy"] < 0.7  # the other inputs are noise


def test_marks_of_missing_values_are_missing_values_whatever_their_share(tmp_path: Path, twolayer: Run) -> None:
    for mark in ("?", "-", "None", "#DIV/0!", "unknown", "missing!"):
        rows = "".join(f"{i % 17},{mark if i % 3 else i % 23},{i % 17 + i % 5}\n" for i in range(90))
        (tmp_path / "t.csv").write_text(f"a,x,y\n{rows}")
        options = ["--set", "data.na=missing!"] if mark == "missing!" else []
        done = twolayer("data", "t.csv", "--target", "y", *options)
        assert done.returncode == 0, done.stderr
        assert "missing values: x 60 of 90 rows" in done.stderr


# --- raw public tables, after their patterns

SOME = random.Random(7)


def penguins(i: int) -> str:
    kind = i % 3
    sex = SOME.choice(["MALE", "FEMALE", ""])
    bill = "" if i % 40 == 3 else f"{38 + 8 * (kind > 0) + SOME.gauss():.1f}"
    return f"{('Adelie', 'Gentoo', 'Chinstrap')[kind]},Torgersen,{bill},{15 + 3 * (kind != 1) + SOME.gauss():.1f},{sex}"


def titanic(i: int) -> str:
    woman, age = i % 3 == 0, "" if i % 5 == 1 else SOME.randrange(1, 80)
    cabin = f"C{i}" if i % 4 == 0 else ""
    alive = woman ^ (SOME.random() < 0.2)
    return f'{i + 1},"Family{i}, Mr. X",{"female" if woman else "male"},{age},{cabin},{SOME.choice("SCQ")},{alive}'


def cars(i: int) -> str:
    power, doors = SOME.randrange(50, 300), SOME.choice(["two", "four"])
    price = "" if i % 37 == 5 else f'"${power * 100 + 1000 * (doors == "four"):,}"'
    return f"{doors},{'?' if i % 25 == 0 else power},gas,{power * 12} kg,{price}"


def bikes(i: int) -> str:
    temperature = SOME.random()
    count = int(2000 * temperature + 5 * i)
    return f"{i + 1},2011-{i // 28 % 12 + 1:02d}-{i % 28 + 1:02d},{temperature:.4f},{i % 7},{count}"


def sales(i: int) -> str:
    price, count = SOME.randrange(100, 9900) / 100, SOME.randrange(1, 10)
    when = f"{i % 12 + 1}/{i % 28 + 1}/2019,{10 + i % 10}:{i % 60:02d}"
    return f"750-67-{1000 + i},{SOME.choice('ABC')},${price},{count},{when},5%,{price * count:.2f}"


TABLES: dict[str, tuple[str, Callable[[int], str], str]] = {
    "penguins": ("species,island,bill,depth,sex", penguins, "species"),
    "titanic": ("PassengerId,Name,Sex,Age,Cabin,Embarked,Survived", titanic, "Survived"),
    "cars": ("doors,power,fuel,weight,price", cars, "price"),
    "bikes": ("instant,dteday,temp,weekday,cnt", bikes, "cnt"),
    "sales": ("Invoice,Branch,Price,Quantity,Date,Time,Tax,Total", sales, "Total"),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", TABLES)
def test_a_raw_public_table_goes_all_the_way_without_an_option(name: str, tmp_path: Path, twolayer: Run) -> None:
    header, row, target = TABLES[name]
    SOME.seed(name)
    lines = [row(i) for i in range(240)]
    (tmp_path / "t.csv").write_text("\n".join([header, *lines]) + "\n")
    done = twolayer("train", "t.csv", "--target", target, "--quiet", "--out", "r")
    assert done.returncode == 0, done.stderr
    done = twolayer("evaluate", "r", "t.csv", "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    best = json.loads(done.stdout.splitlines()[0])
    assert best.get("R2", best.get("accuracy")) > (0.7 if "accuracy" in best else 0.85)
    done = twolayer("predict", "r", "t.csv", "-o", "p.csv")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 241
    done = twolayer("evaluate", "r", "p.csv", "--format", "jsonl")
    assert json.loads(done.stdout.splitlines()[0]) == best
    assert twolayer("report", "r", "-o", "r.html").returncode == 0
