"""Renders an HTML page that is a single file: scripts, styles and data are inside, and it needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from twolayer.errors import extra
from twolayer.version import __version__

with extra("jinja2", "report"):
    import jinja2
    from markupsafe import Markup


def read(name: str) -> str:
    """The text of a file in `templates`."""
    return (files("twolayer.reporting.html") / "templates" / name).read_text(encoding="utf-8")


def render(template: str, *, data: Any, scripts: Sequence[str], styles: Sequence[str], **values: Any) -> str:
    """A page from a template, which extends `page.html`.

    The scripts are modules, run in order; they find `data`, any JSON, as `DATA`. `values` go to the template: text in
    them is always shown as text, never as HTML. The page's policy lets no other script run, and no request be made.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data_script = f"globalThis.DATA = JSON.parse({_literal(json.dumps(data, allow_nan=False))});"
    whole = [_closed(script) for script in (data_script, *scripts)]
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in whole)
    # Vega compiles the expressions of a chart; they are ours, and never contain data.
    policy = f"default-src 'none'; script-src {hashes} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"
    return environment.get_template(template).render(
        values,
        version=__version__,
        policy=policy + "; base-uri 'none'; form-action 'none'",
        scripts=[Markup(script) for script in whole],  # noqa: S704 ours; the data are escaped above
        styles=[Markup(style.replace("</", "<\\/")) for style in styles],  # noqa: S704
    )


def published(module: str, name: str) -> str:
    """A module with its default export made a global, because a module inside the page cannot be imported.

    Raises ValueError where it has no default export.
    """
    exports = list(re.finditer(r"\bexport\s*\{([^{}]*)\}\s*;?", module))
    default = re.search(r"([\w$]+)\s+as\s+default\b", exports[-1][1]) if exports else None
    if default is None:
        raise ValueError(f"the module has no default export for {name}")
    return f"{module[: exports[-1].start()]}globalThis.{name} = {default[1]};{module[exports[-1].end() :]}"


def _literal(text: str) -> str:
    """A JavaScript string in which no HTML can begin: the parser of the page sees no `<` in it."""
    return json.dumps(text).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _closed(script: str) -> str:
    """A script without anything that would end its element early, and with the line ends that browsers hash."""
    return script.replace("\r\n", "\n").replace("</script", "<\\/script").replace("<!--", "\\x3c!--")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
