"""Writes the generated parts of the docs and configs; with --check it only names those that are stale.

The commands in `README.md` and `docs/cli.md` from `--help`; the table of keys in `docs/config.md`; the JSON Schema in
`configs/`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from typer.main import get_group

from twolayer.cli.main import app
from twolayer.config.schema import FILE_DEFAULTS, SIZES, SOURCES, Config, schema
from twolayer.config.validation import ALLOWED, show

ROOT = Path(__file__).parent.parent
COMMANDS = ["", *get_group(app).commands]  # in the order of `twolayer --help`


def help_text(command: str) -> str:
    """What `twolayer <command> --help` prints, 80 columns wide."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TWOLAYER_", "_TWOLAYER"))}
    arguments = [sys.executable, "-m", "twolayer", *command.split(), "--help"]
    environment |= {"COLUMNS": "80", "LC_ALL": "C.UTF-8"}
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True).stdout.rstrip()


EXIT_CODES = """## Exit codes

| code | meaning |
|---|---|
| 0 | success |
| 1 | failure: no such device, a table that cannot be read or trained on, a damaged file, an output that cannot be \
written; `bench` or `doctor` found an engine that computes other numbers, or `compare --expect-equal` histories \
that differ |
| 2 | wrong usage: the command line or the config is wrong, a file or a run that it names does not exist, \
a file that it would write exists, or the run cannot be resumed |
| 3 | the loss diverged |
| 130, 143 | stopped by Ctrl-C, by SIGTERM or SIGHUP |

An error is one line on stderr: `error: `, where it is, what is wrong, and what to do. A config with several problems
has a line for each; those of a table stand one by one below its line.
"""


def cli() -> str:
    """The page of the command line."""
    lines = ["# The command line", "", "Made from `--help` by `make docs`; do not edit.", ""]
    for command in COMMANDS:
        title = f"twolayer {command}".rstrip()
        lines += [f"## {title}", "", "```text", help_text(command), "```", ""]
    return "\n".join([*lines, EXIT_CODES])


def table() -> str:
    """The keys of a config, as a table in Markdown."""
    rows = ["| key | may be | default | what it is |", "|---|---|---|---|"]
    for key, field in Config.model_fields.items():
        default = "required" if field.is_required() else f"`{_plain(field.default)}`"
        if key in SIZES:
            default += ", except with a file"
        elif key == "patience":
            default += f"; for a file `{FILE_DEFAULTS[key]}`, unless `validation` is null"
        elif key == "average":
            default += f"; for a file with batches `{_plain(FILE_DEFAULTS[key])}`"
        elif key in FILE_DEFAULTS:
            default += f"; for a file `{_plain(FILE_DEFAULTS[key])}`"
        rows.append(f"| `{key}` | {_code(ALLOWED[key])} | {default} | {field.description} |")
        if key == "data":
            inside = [(s, name, inner) for s, model in SOURCES.items() for name, inner in model.model_fields.items()]
            sources = "; ".join(f"{source}: {_first(model.__doc__)}" for source, model in SOURCES.items())
            rows.append(f"| `data.source` | {ALLOWED['data.source']} | `random` | {sources} |")
            for source, name, inner in inside:
                if name != "source":
                    default = "required" if inner.is_required() else f"`{_plain(inner.default)}`"
                    allowed = _code(ALLOWED[f"data.{name}"])
                    rows.append(f"| `data.{name}` | {allowed} | {default} | with {source}: {inner.description} |")
    return "\n".join(rows)


def _code(text: str) -> str:
    """Without code marks, <n> would be taken for HTML."""
    return text.replace("cuda:<n>", "`cuda:<n>`").replace('"|"', r'"\|"')


def _first(text: str | None) -> str:
    """A docstring's first sentence, without its end."""
    return (text or "").split("\n\n")[0].strip().rstrip(".")


def _plain(value: object) -> str:
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    return show(value).replace("'", "")


def commands() -> str:
    """The commands in their groups, as the help lists them."""
    text = help_text("")
    return f"```text\n{text[text.index('Train:') : text.index('  Example:')].rstrip()}\n```"


def inserted(path: Path, mark: str, text: str) -> str:
    """The page with this text between the two marks."""
    marks = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.S)
    page = path.read_text()
    assert len(marks.findall(page)) == 1
    return marks.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)


def generated() -> dict[Path, str]:
    """Every generated file, and its content."""
    readme, keys = ROOT / "README.md", ROOT / "docs" / "config.md"
    return {
        readme: inserted(readme, "commands", commands()),
        keys: inserted(keys, "keys", table()),
        ROOT / "docs" / "cli.md": cli(),
        ROOT / "configs" / "twolayer.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
    }


def main() -> int:
    """Write the files, or check them; the exit code."""
    stale = [path for path, text in generated().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(generated()[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
