"""A page that is one file and asks the network for nothing: its scripts, styles and data stand in it."""

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
    """A file of `templates`, as it is."""
    return (files("twolayer.reporting.html") / "templates" / name).read_text(encoding="utf-8")


def render(template: str, *, data: Any, scripts: Sequence[str], styles: Sequence[str], **values: Any) -> str:
    """A page from a template, which extends `page.html`.

    `data` is anything JSON has; the scripts are modules, run in their order, and find it as `DATA`. `values` are the
    template's: text in them is shown as text, whatever it holds. The page's policy lets no other script run, and
    nothing be asked of the network.
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
    # Vega compiles the expressions of a chart; those are ours, the data are never among them.
    policy = f"default-src 'none'; script-src {hashes} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"
    return environment.get_template(template).render(
        values,
        version=__version__,
        policy=policy + "; base-uri 'none'; form-action 'none'",
        scripts=[Markup(script) for script in whole],  # noqa: S704 they are ours; the data are escaped above
        styles=[Markup(style.replace("</", "<\\/")) for style in styles],  # noqa: S704
    )


def published(module: str, name: str) -> str:
    """A module whose default export becomes a global: one that stands in the page cannot be imported.

    Raises ValueError where it has none.
    """
    *_, exports = [None, *re.finditer(r"\bexport\s*\{([^{}]*)\}\s*;?", module)]
    default = exports and re.search(r"([\w$]+)\s+as\s+default\b", exports[1])
    if not exports or not default:
        raise ValueError(f"the module has no default export to be {name}")
    return f"{module[: exports.start()]}globalThis.{name} = {default[1]};{module[exports.end() :]}"


def _literal(text: str) -> str:
    """A JavaScript string in which no HTML can begin: the parser of the page sees no `<` in it."""
    return json.dumps(text).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _closed(script: str) -> str:
    """A script that does not end before its end, and whose line ends are those that a browser hashes."""
    return script.replace("\r\n", "\n").replace("</script", "<\\/script").replace("<!--", "\\x3c!--")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
