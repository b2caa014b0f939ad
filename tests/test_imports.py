"""Imports point one way only: the house of docs/design.md, held by reading the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import twolayer

PACKAGE = Path(twolayer.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}

# What each module may import of the others at its top, and, after the bar, inside a function.
MAY_IMPORT = {
    "__init__": "",
    "__main__": "| cli",
    "errors": "text",
    "yaml12": "errors",
    "config": "",
    "problems": "config errors yaml12",
    "loading": "config errors files problems yaml12 | reading tables",
    "available_memory": "",
    "memory": "available_memory config errors",
    "history": "files",
    "text": "",
    "thinning": "",
    "sealing": "files",
    "page": "errors",
    "events": "config errors files history runs",
    "saved": "config errors history loading runs sealing text",
    "brief": "runs saved text",
    "compare": "brief history saved",
    "curve": "thinning",
    "showing": "brief console curve history process saved thinning",
    "comparing": "compare console saved text",
    "weights": "errors files runs saved sealing",
    "picturing": "errors saved text weights",
    "telling": "brief compare config errors picturing saved text weights",
    "report": "chart errors files page saved telling text theme",
    "plotting": "chart errors files page saved theme",
    "theme": "",
    "chart": "errors saved theme thinning",
    "data": "config errors model | tables",
    "damage": "",
    "sizing": "",
    "arrays": "sizing",
    "reading": "arrays available_memory damage errors files memory sizing",
    "columns": "errors reading",
    "survey": "columns errors reading",
    "summary": "columns errors reading survey text",
    "tables": "columns config errors reading summary survey",
    "baselines": "",
    "evaluation": "baselines checkpoint errors files runs sealing | tables",
    "writing": "errors",
    "serving": "columns console errors evaluation files process reading tables writing",
    "model": "config errors",
    "engines": "config data errors engines.autograd engines.fused engines.graph engines.manual engines.rows memory",
    "engines.autograd": "data engines.working memory",
    "engines.manual": "data engines.losses engines.working",
    "engines.fused": "config data engines.losses engines.manual engines.working memory",
    "engines.rows": "data engines.losses engines.manual engines.working memory",
    "engines.losses": "",
    "engines.graph": "",
    "engines.working": "errors",
    "machine": "available_memory config engines engines.fused errors memory",
    "checkpoint": "errors files runs sealing",
    "session": "console errors model process recording stepsize training",
    "recording": "baselines checkpoint config data errors evaluation files history memory model runs training",
    "bench": "config engines engines.fused errors machine memory model stepsize training",
    "stepsize": "config data engines.losses engines.manual engines.working errors machine memory",
    "stopping": "engines.working errors",
    "training": (
        "config data engines engines.fused engines.working errors history machine memory model stepsize stopping"
        " | tables"
    ),
    "console": "errors history process text",
    "files": "errors",
    "runs": "errors files history sealing",
    "listing": "errors files history runs saved",
    "process": "",
    "options": "config console errors loading memory process runs",
    "commands": "",
    "commands.training": "console errors options process runs | bench events model recording session stepsize training",
    "commands.tables": "console errors options process runs | serving tables",
    "commands.looking": "compare console listing options runs saved | comparing plotting report showing",
    "commands.configs": "config console loading options",
    "cli": "commands commands.configs commands.looking commands.tables commands.training console errors process",
}
ONLY_USER = {
    "typer": {"cli", "options"} | {f"commands.{name}" for name in ("configs", "looking", "tables", "training")},
    "rich": {"console", "showing", "comparing"},
    "uniplot": {"curve"},
    "yaml": {"yaml12"},
    "pydantic": {"config", "loading"},
    "jinja2": {"page"},
    "PIL": {"picturing"},
    "altair": {"chart"},
    "polars": {"arrays", "reading", "columns", "summary", "survey", "tables", "writing", "serving"},
}
COMPUTES = {
    "baselines",
    "evaluation",
    "bench",
    "checkpoint",
    "recording",
    "stepsize",
    "stopping",
    "engines.working",
    "data",
    "machine",
    "model",
    "training",
} | {
    "engines",
    "engines.autograd",
    "engines.fused",
    "engines.graph",
    "engines.losses",
    "engines.manual",
    "engines.rows",
}


def imports(module: str) -> tuple[set[str], set[str]]:
    """The full names that a module imports at its top (TYPE_CHECKING aside), and inside functions."""
    top: set[str] = set()
    inside: set[str] = set()

    def visit(node: ast.AST, found: set[str]) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            base = node.module or ""
            found.update(f"{base}.{alias.name}" if base == "twolayer" else base for alias in node.names)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        deeper = inside if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else found
        for child in ast.iter_child_nodes(node):
            visit(child, deeper)

    visit(ast.parse(MODULES[module].read_text()), top)
    return top, inside


def ours(names: set[str]) -> set[str]:
    found = {name.removeprefix("twolayer.") for name in names if name.startswith("twolayer")}
    return {name for name in found if name in MODULES}


def test_every_module_has_its_place() -> None:
    assert set(MODULES) == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_stands_below_it(module: str) -> None:
    top, inside = imports(module)
    allowed_top, _, allowed_inside = MAY_IMPORT[module].partition("|")
    assert ours(top) <= set(allowed_top.split())
    assert ours(inside) <= set(allowed_inside.split())


@pytest.mark.parametrize("package", ["torch", *ONLY_USER])
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    users = {m for m in MODULES if any(name.partition(".")[0] == package for found in imports(m) for name in found)}
    assert users == (COMPUTES if package == "torch" else ONLY_USER[package])


def test_no_import_goes_in_a_circle() -> None:
    below = {module: ours(imports(module)[0]) for module in MODULES}
    while below:
        free = {module for module, needs in below.items() if not needs & below.keys()}
        assert free, f"a circle among {sorted(below)}"
        below = {module: needs for module, needs in below.items() if module not in free}


def test_the_public_names_are_all_there_and_nothing_else() -> None:
    assert dir(twolayer) == sorted(twolayer.__all__) == twolayer.__all__
    assert all(getattr(twolayer, name) is not None for name in twolayer.__all__)
    with pytest.raises(AttributeError, match="module 'twolayer' has no attribute 'trian'"):
        twolayer.trian  # type: ignore[attr-defined]  # noqa: B018


def test_the_names_for_the_type_checker_are_those_that_are_loaded() -> None:
    tree = ast.parse(MODULES["__init__"].read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        (str(node.module), alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {(f"twolayer.{module}", name) for name, module in twolayer._MODULE.items()}
