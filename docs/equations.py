"""Renders the equations of a page as MathML while mkdocs builds it (a hook of mkdocs.yml).

Browsers draw MathML without a script, so that the site needs neither MathJax nor the network.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex makes of $...$ and of $$...$$.
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace the LaTeX of a page by MathML."""
    content = _INLINE.sub(lambda match: _mathml(match[1], "inline"), content)
    return _BLOCK.sub(lambda match: _mathml(match[1], "block"), content)


def _mathml(latex: str, display: str) -> str:
    return convert(html.unescape(latex).strip(), display=display)
