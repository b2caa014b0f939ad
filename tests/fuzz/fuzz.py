"""Fuzzes one target, guided by the coverage of our code: `make fuzz`.

python -m tests.fuzz.fuzz yaml|rows|history|safetensors|run_json [OPTIONS OF LIBFUZZER...]

It needs atheris, and no torch. New inputs that reach new code are kept in .fuzz/TARGET; an input that breaks a promise
is written to .fuzz/crash-..., and the exit code is not 0. Such an input belongs in corpus/TARGET,
together with the fix.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

CORPUS = Path(__file__).parent / "corpus"
FOUND = Path(".fuzz")


def main(name: str, options: list[str]) -> None:
    """Fuzz until libFuzzer's options say stop; by default for a minute, with inputs of at most 4 KiB."""
    with atheris.instrument_imports(include=["twolayer", "tests.fuzz.targets"]):
        from tests.fuzz.targets import TARGETS
    (FOUND / name).mkdir(parents=True, exist_ok=True)
    defaults = ["-max_total_time=60", "-max_len=4096", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]
    places = [str(FOUND / name), str(CORPUS / name)]  # new inputs go into the first one
    atheris.Setup([sys.argv[0], *defaults, f"-artifact_prefix={FOUND}/", *options, *places], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
