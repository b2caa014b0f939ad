"""The screen of `doctor`: a line for each section where all is well, and a line for each thing that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from twolayer.cli import terminal
from twolayer.cli.terminal import Format, out
from twolayer.formatting import counted, duration, microseconds_unit, safe
from twolayer.training.doctor.finding import COLUMNS, Finding, Section

if TYPE_CHECKING:
    from twolayer.training.doctor.own_losses import OwnLosses

_MARGIN = 13  # characters, for the name of a section
_MOST = 10  # lines of what is wrong in a section; csv and jsonl have all


class DoctorView:
    """Prints findings, a section at a time, and keeps them."""

    def __init__(self, form: Format) -> None:
        self.form, self.found = form, list[Finding]()

    @property
    def wrong(self) -> int:
        """How much is wrong so far."""
        return sum(one.status == "wrong" for one in self.found)

    @property
    def checks(self) -> int:
        """How much was checked so far."""
        return sum(one.status in ("right", "wrong") for one in self.found)

    def section(self, name: Section, findings: Iterable[Finding], progress: Callable[[str], object] = str) -> None:
        """Print a section when it ends, or as far as it is when it is interrupted.

        `progress` gets what was looked at last, and nothing before anything is printed.
        """
        own, is_whole = list[Finding](), False
        try:
            for one in findings:
                own.append(one)
                progress(one.engine or one.name)
            is_whole = True
        finally:
            self.found += own
            progress("")
            if own:
                self._print(name, own, is_whole=is_whole)

    def _print(self, name: Section, own: Sequence[Finding], *, is_whole: bool) -> None:
        if self.form != "table":
            is_first = own[0] is self.found[0]
            terminal.rows(COLUMNS, [one.values() for one in own], self.form, header=is_first)
            return
        if name == "environment":
            lines = _environment({one.name: one.got for one in own})
        elif name == "device":
            lines = _device(own)
        elif name == "speed" and not any(one.status == "wrong" for one in own):
            lines = _speed({one.name: one for one in own})
        else:
            lines = _checks(name, own, is_whole=is_whole)
        for line in lines:
            out().print(line)

    def verdict(self, seconds: float) -> None:
        """Print the last line: whether anything is wrong."""
        wrong, checks = self.wrong, self.checks
        last = Finding("verdict", "wrong", "wrong" if wrong else "right", expected=0, got=wrong, unit=f"of {checks}")
        self.found.append(last)
        if self.form != "table":
            self._print("verdict", [last], is_whole=True)
            return
        took = duration(seconds)
        if not checks:  # it was interrupted before
            out().print(Text("\nNothing was checked", "bold"))
        elif any(one.section == "device" and one.status == "wrong" for one in self.found):
            out().print(Text("\nThe device cannot be used", "bold red"))
        elif wrong:
            out().print(Text(f"\n{wrong} of {counted(checks, 'check')} failed, in {took}", "bold red"))
        else:
            out().print(Text(f"\nAll {counted(checks, 'check')} passed, in {took}", "bold green"))


def _line(name: str, *parts: str | tuple[str, str]) -> Text:
    """A line of a section: its name in the margin, then the text."""
    return Text.assemble((name.ljust(_MARGIN), "bold"), *parts)


def _environment(facts: Mapping[str, Any]) -> Iterator[Text]:
    """Versions and hardware."""
    fact = {name: safe(value) for name, value in facts.items() if value is not None}
    yield _line(
        "twolayer", f"{fact['twolayer']}, Python {fact['python']}, PyTorch {fact['torch']}, NumPy {fact['numpy']}"
    )
    yield _line("system", f"{fact['system']}, {fact['machine']}")
    threads = counted(facts["threads"], "thread")
    cpu = [fact.get("cpu", "unknown"), counted(facts["cpus"] or 0, "core"), threads, fact["capability"]]
    yield _line("CPU", ", ".join([*cpu, *([fact["blas"]] if "blas" in fact else [])]))
    driver = [f"driver {fact['driver']}"] if "driver" in fact else []
    cuda = f"CUDA {fact['cuda']}" if "cuda" in fact else "CPU-only build of PyTorch"
    yield _line("GPU", ", ".join([fact.get("gpu", "none"), *driver, cuda]))
    extras = [name.removeprefix("extra ") for name in facts if name.startswith("extra ")]
    missing = [name for name in extras if facts[f"extra {name}"] is None]
    there = ", ".join(name for name in extras if name not in missing) or "none"
    yield _line("extras", there, f"; without {', '.join(missing)}" if missing else "")


def _device(own: Sequence[Finding]) -> Iterator[Text]:
    """The device, or why there is none; and the engines that are left out."""
    device, *left_out = own
    if device.status == "wrong":
        yield _line("device", ("FAILED", "bold red"), f": {safe(device.note)}")
        return
    yield _line("device", safe(device.name), f"; {device.note}" if device.note else "")
    for one in left_out:
        yield _line("", safe(f"{one.engine} is left out: {one.note}"))
    yield Text()


def _checks(name: Section, own: Sequence[Finding], *, is_whole: bool) -> Iterator[Text]:
    """Whether all is right, and what is not; of an engine only what was first."""
    wrong = [one for one in own if one.status == "wrong"]
    if wrong:
        count = counted(sum(one.status in ("right", "wrong") for one in own), "check")
        yield _line(name, ("FAILED", "bold red"), f": {len(wrong)} of {count}")
    else:
        yield _line(name, ("passed", "green"), ": " if is_whole else " so far: ", _what(name, own))
    first = list({one.engine or one.name: one for one in reversed(wrong)}.values())[::-1]
    for one in first[:_MOST]:
        yield Text(f"  {_in_a_line(one)}")
    if len(first) > _MOST:
        yield Text(f"  and {len(first) - _MOST} more; --format jsonl has all")
    if name == "ranks" and (cost := [one for one in own if one.status == "fact"]):
        yield _line("", _exchange(cost))
    for one in own:
        if one.status == "no record":
            yield _line("", (safe(f"{one.name}: {one.note}"), "dim"))


def _what(name: Section, own: Sequence[Finding]) -> str:
    """What was checked, in a few words."""
    engines = counted(len({one.engine for one in own if one.engine and one.engine != "by hand"}), "engine")
    if name == "answers":
        return f"the book's 500 losses by {engines}; draws, gradients, numpy"
    if name == "ranks":
        sizes = [one.name.split()[0] for one in own if one.name.endswith(" ranks") and one.status == "right"]
        listed = ", ".join(dict.fromkeys(["1", *sizes]))
        return f"same bits on {' and '.join(listed.rsplit(', ', 1))} ranks by {engines.replace('engine', 'split')}"
    if name == "determinism":
        return f"same bits by {engines}, also cut, resumed and moved"
    return "; ".join(f"{one.note}, every bit as it must be" for one in own)


def _exchange(cost: Sequence[Finding]) -> str:
    """What an exchange of numbers costs."""
    latency, *rest = (float(one.got or 0) for one in cost)
    unit = microseconds_unit(out().options.ascii_only)
    return f"an exchange takes {duration(latency / 1e6, unit)}" + "".join(f" and moves {one:.3g} GB/s" for one in rest)


def _in_a_line(one: Finding) -> str:
    """What is wrong, in a line: engine, iteration, expected and got."""
    iteration = f"iteration {one.iteration}" if one.iteration else None
    parts = [part for part in (one.engine, one.name, iteration, one.note) if part]
    if isinstance(one.expected, float) and isinstance(one.got, float):
        pairs = ((f"{one.expected:.{digits}g}", f"{one.got:.{digits}g}") for digits in (6, 9, 17))
        expected, got = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
        return safe(f"{', '.join(parts)}: expected {expected}, got {got}")
    return safe(": ".join(parts))


def _speed(figures: Mapping[str, Finding]) -> Iterator[Text]:
    """The rates of this machine, and what part of them trainings reach."""

    def share(name: str) -> str:
        return f"{name} {figures[f'{name}, share'].got:.0f} %"

    products, copies = (figures[name].got for name in ("products", "copies"))
    rates = f"{products:.3g} GFLOP/s ({share('book')}, {share('large')}), memory {copies:.3g} GB/s ({share('rows')})"
    yield _line("speed", rates)
    if (had := figures.get("cores had")) is not None and had.note:
        load = f", load {figures['load'].got:.3g}" if "load" in figures else ""
        yield _line("", f"the machine is busy: doctor had {had.got:.2g} {had.unit} cores{load}")


def published_table(losses: OwnLosses, form: Format) -> int:
    """Print the published losses and those of this machine; the exit code."""
    names, rows, agreement = ("iteration", "published", "here", "difference"), losses.rows(), losses.agreement
    if form != "table":
        terminal.rows(names, rows, form)
        return int(agreement.status == "wrong")
    lines = [(t, f"{published:.6g}", f"{here:.6g}", f"{100 * by:+.2g} %") for t, published, here, by in rows]
    terminal.rows(names, lines, form)
    t, *_, by = max(rows, key=lambda row: abs(row[3]))
    if agreement.status == "right":
        largest = f"the largest difference is {100 * abs(by):.2g} %, at iteration {t}"
        terminal.say(f"\nAll {len(rows)} agree to three significant digits; {largest}")
        return 0
    terminal.say(f"\nFAILED: iteration {agreement.iteration} differs within its first three significant digits")
    return 1
