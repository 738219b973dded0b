"""HTML pages that open offline: templates with every value escaped, and nothing from elsewhere."""

import base64
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
from markupsafe import Markup

_REPORT = Path(__file__).parent


def render(
    folder: Path,
    name: str,
    scripts: Sequence[str] = (),
    styles: Sequence[str] | None = None,
    **values: Any,
) -> str:
    """A page from a template.

    Args:
        folder: of the template; those of the report can be imported from it.
        name: of the template, without its suffix.
        scripts: files beside it, or of the report, without their suffix, which become one script.
        styles: the same of its style sheets; None: the one that has its name.
        values: for the template, which also gets `style`, `script` and `policy`, a Content Security
            Policy that allows these two and embedded images only.
    """
    script = "".join(_text(folder, f"{part}.js") for part in scripts)
    parts = (name,) if styles is None else styles
    style = "".join(_text(folder, f"{part}.css") for part in parts)
    allowed = f"'{_hash(script)}'" if script else "'none'"
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )
    template = _environment(folder).get_template(f"{name}.html")
    return template.render(style=Markup(style), script=Markup(script), policy=policy, **values)


def fragment(folder: Path, name: str, **values: Any) -> str:
    """A part of somebody else's page from a template."""
    return _environment(folder).get_template(f"{name}.html").render(**values)


def macros(folder: Path, name: str) -> ModuleType:
    """The macros of a template, as functions that return markup."""
    return _environment(folder).get_template(f"{name}.html").module


def _text(folder: Path, name: str) -> str:
    path = folder / name
    return (path if path.is_file() else _REPORT / name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


@functools.cache
def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _REPORT]), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["px"] = "{:.1f}".format
    environment.filters["count"] = "{:,}".format
    return environment
