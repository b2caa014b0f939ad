"""Imports between packages point one way only; read from the source, so TYPE_CHECKING and lazy imports count."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import twolayer
from tests.helpers.forking import clean_environment

PACKAGE = Path(twolayer.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# A package may import itself, the modules at the root, `system`, and these packages; they stand from the ground up.
MAY_IMPORT: dict[str, set[str]] = {
    "system": set(),
    "tables": set(),
    "config": {"tables"},
    "engines": {"tables", "config"},
    "runs": {"tables", "config"},
    "sweeps": {"tables", "config", "runs"},
    "hardware": {"config", "engines"},
    "evaluation": {"tables", "runs"},
    "reporting": {"config", "runs", "sweeps"},
    "training": {"tables", "config", "engines", "runs", "sweeps", "hardware", "evaluation", "reporting"},
    "exporters": {"tables", "config", "engines", "runs", "evaluation", "training"},
    "cli": {"tables", "config", "runs", "sweeps", "hardware", "evaluation", "reporting", "training", "exporters"},
}
ROOT: dict[str, set[str]] = {
    "version": set(),
    "formatting": set(),
    "errors": {"formatting"},
    "files": {"errors", "system"},
}
PUBLIC = {"__init__", "__main__"}  # they may import anything, and nothing imports them
# Which modules or packages import a library; nothing else does.
ONLY_USER = {
    "typer": {"cli"},
    "rich": {"cli"},
    "uniplot": {"reporting.text_chart"},
    "yaml": {"config.yaml12"},
    "pydantic": {"config", "tables.options"},
    "jinja2": {"reporting.html.page"},
    "PIL": {"reporting.html.weight_images"},
    "altair": {"reporting.chart"},
    "vl_convert": {"reporting.html.report", "reporting.plot"},
    "polars": {
        "evaluation.encoded_rows",
        "evaluation.frames",
        "exporters.eject_file",
        "exporters.eject_reading",
        "exporters.eject_types",
        "exporters.writing",
        "tables",
    },
    "onnx": {"exporters.onnx_file", "exporters.onnx_graph"},
    "onnxruntime": {"exporters.onnx_file"},
    "tensorboard": {"runs.tensorboard"},
    "numba": {"engines.kernels", "engines.selection", "engines.vectors"},
    "llvmlite": {"engines.kernels", "engines.vectors"},
    "torch": {
        "engines",
        "evaluation",
        "exporters.eject",
        "exporters.eject_run",
        "exporters.eject_table",
        "exporters.writing",
        "hardware",
        "runs.checkpoint",
        "training",
    },
}
# Imports inside functions, each with its reason.
LAZY = {
    "__main__": "Ctrl-C is handled before anything else is imported",
    "cli.resume": "polars and numpy, only for a table of an older run, or for another table",
    "config.from_table": "polars, only for a table",
    "engines.factory": "numba, only where its engine is chosen",
    "training.folds": "polars, only for a table",
    "training.loaded_run": "polars, only for a table",
    "training.outcome": "polars, only for a table",
    "training.shares": "polars, only for a table",
    "exporters.functions": "polars, which export needs",
    "exporters.eject": "polars, only for a table",
    "cli.commands.eject": "torch",
    "cli.commands.inspect": "torch",
    "cli.inspect_view": "torch",
    "cli.commands.train": "torch, after the config is known to be right",
    "cli.sweeping": "torch, after the points are known to be right",
    "training.sweep_points": "tensorboard, which may be missing",
    "cli.rank_process": "torch",
    "cli.ranks": "torch, and what the other processes do, only with ranks",
    "cli.commands.bench": "torch",
    "cli.scaling": "torch, after the other processes are started",
    "cli.commands.doctor": "torch",
    "cli.commands.lr": "torch",
    "exporters.writing": "onnx, only for an .onnx",
    "cli.commands.evaluate": "torch",
    "cli.commands.export": "torch",
    "cli.commands.predict": "torch",
    "cli.commands.data": "polars",
    "cli.commands.show": "numpy",
    "cli.commands.plot": "altair",
    "cli.commands.report": "altair",
}
# Imported without torch: what `twolayer check` and all that only looks at runs need.
WITHOUT_TORCH = {
    "system",
    "tables",
    "config",
    "runs",
    "sweeps",
    "reporting",
    "cli",
    "engines.selection",
    "hardware.memory",
    "hardware.launchers",
    *ROOT,
}
EXCEPT = {"runs.checkpoint", "cli.training_session", "cli.folds_session", "cli.sweep_session"}
# Modules that have not moved into a package yet, and what each may import: at its top | inside a function.
UNMOVED: dict[str, str] = {}


@cache
def visited(module: str) -> list[tuple[ast.Import | ast.ImportFrom, bool]]:
    """The import statements of a module, and whether each is inside a function."""
    found: list[tuple[ast.Import | ast.ImportFrom, bool]] = []

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append((node, inside))
        for child in ast.iter_child_nodes(node):
            visit(child, inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))

    visit(ast.parse(MODULES[module].read_text()), False)
    return found


def imports(module: str) -> dict[str, bool]:
    """The modules of twolayer that a module imports, and whether inside functions only."""
    found: dict[str, bool] = {}
    for node, inside in visited(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "twolayer":
            assert node.level == 0, f"{module}: relative import"
            base = (node.module or "").removeprefix("twolayer").strip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".strip(".")
                name = (full if full in MODULES else base) or "__init__"
                found[name] = found.get(name, True) and inside
    return found


def libraries(module: str) -> set[str]:
    """The packages of others that a module imports."""
    found: set[str] = set()
    for node, _ in visited(module):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        found |= {name.partition(".")[0] for name in names}
    return found


def package(module: str) -> str:
    return module.partition(".")[0]


def is_in(module: str, places: set[str]) -> bool:
    """Whether a module is one of these, or in one of these packages."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


def test_every_module_has_its_place() -> None:
    assert all(package(module) in {*MAY_IMPORT, *ROOT, *PUBLIC} or module in UNMOVED for module in MODULES)


@pytest.mark.parametrize("module", [module for module in MODULES if module not in PUBLIC | set(UNMOVED)])
def test_a_package_imports_only_packages_below_it(module: str) -> None:
    own = package(module)
    for name in imports(module):
        assert name not in PUBLIC, f"{module} imports {name}"
        if own in ROOT:
            assert package(name) in ROOT[own], f"{module} imports {name}"
        else:
            assert package(name) in {own, "system"} | MAY_IMPORT[own] or name in ROOT, f"{module} imports {name}"


@pytest.mark.parametrize("module", UNMOVED)
def test_a_module_imports_only_what_stands_below_it(module: str) -> None:
    allowed_top, _, allowed_inside = UNMOVED[module].partition("|")
    found = imports(module)
    assert {name for name, is_inside in found.items() if not is_inside} <= set(allowed_top.split())
    assert {name for name, is_inside in found.items() if is_inside} <= set(allowed_inside.split())


def test_the_packages_stand_in_order() -> None:
    below: set[str] = set()
    for name, allowed in MAY_IMPORT.items():
        assert allowed <= below, f"{name} stands too low"
        below.add(name)


def test_no_import_goes_in_a_circle() -> None:
    below = {module: set(imports(module)) & set(MODULES) for module in MODULES}
    while below:
        free = {module for module, needs in below.items() if not needs & below.keys() - {module}}
        assert free, f"a circle among {sorted(below)}"
        below = {module: needs for module, needs in below.items() if module not in free}


@pytest.mark.parametrize("module", [module for module in MODULES if module not in UNMOVED])
def test_only_a_few_modules_import_inside_functions(module: str) -> None:
    lazy = [node for node, is_inside in visited(module) if is_inside and isinstance(node, ast.ImportFrom)]
    assert any(package(node.module or "") == "twolayer" for node in lazy) == (module in LAZY)


@pytest.mark.parametrize("library", ONLY_USER)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    users = {module for module in MODULES if library in libraries(module)}
    assert all(is_in(user, ONLY_USER[library]) for user in users)
    assert all(any(is_in(user, {place}) for user in users) for place in ONLY_USER[library])


def test_what_only_looks_does_not_load_torch() -> None:
    modules = [module for module in MODULES if is_in(module, WITHOUT_TORCH) and module not in EXCEPT]
    assert not [module for module in modules if "torch" in libraries(module)]
    names = ", ".join(f"twolayer.{module}" for module in modules)
    command = [sys.executable, "-c", f"import sys, {names}; sys.exit('torch' in sys.modules)"]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_does_not_wait_for_numpy_polars_or_torch() -> None:
    program = "import sys, twolayer.cli.main; print(*{'numpy', 'polars', 'torch', 'safetensors'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], env=clean_environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


@pytest.mark.deep
def test_every_module_can_be_the_first_that_is_imported() -> None:
    # A process that has all that they import from others forks a child for each module, which has none of ours.
    program = (
        "import importlib, os, sys, warnings\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "for name in [*sys.modules]:\n"
        "    if name.partition('.')[0] == 'twolayer': del sys.modules[name]\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"  # of forking beside the threads of these libraries
        "for name in sys.argv[1:]:\n"
        "    if pid := os.fork():\n"
        "        if os.waitpid(pid, 0)[1]: print(name)\n"
        "        continue\n"
        "    warnings.resetwarnings()\n"
        "    assert 'twolayer' not in sys.modules\n"
        "    importlib.import_module(name)\n"
        "    os._exit(0)\n"
    )
    names = [f"twolayer.{module}" for module in MODULES if module not in PUBLIC]
    command = [sys.executable, "-c", program, *names]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_the_init_of_a_package_is_one_sentence(name: str) -> None:
    for module, path in MODULES.items():
        if path.name == "__init__.py" and is_in(module, {name}) and module not in UNMOVED:
            (statement,) = ast.parse(path.read_text()).body
            assert isinstance(statement, ast.Expr)
            assert isinstance(statement.value, ast.Constant)
            assert str(statement.value.value).count("\n") == 0


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
