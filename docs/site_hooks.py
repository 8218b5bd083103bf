"""What the site needs beyond mkdocs: formulas as MathML, and the notebooks as pages.

mkdocs calls these functions by their names. Formulas become MathML when the site is built, so that
a page needs no script and no network to show them.
"""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace every formula of a page by MathML."""
    return FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    kind = "block" if found[1] == "div" else "inline"
    mathml = convert(html.unescape(found[2]).strip(), display=kind)
    return f'<div class="formula">{mathml}</div>' if kind == "block" else mathml


def on_files(files: Files, config: Any) -> Files:
    """Add a page, and its images, for every notebook."""
    for notebook in sorted(Path(config.docs_dir).glob("notebooks/*.ipynb")):
        pieces, images = page_of(json.loads(notebook.read_text(encoding="utf-8")), notebook.stem)
        place = f"notebooks/{notebook.stem}"
        files.append(File.generated(config, f"{place}.md", content=pieces))
        for name, content in images.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def page_of(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and the images that it shows, by their names."""
    pieces: list[str] = []
    images: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            pieces.append(source)
            continue
        pieces.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                image = f"{name}-{len(images)}.png"
                images[image] = base64.b64decode(data["image/png"])
                pieces.append(f"![Figure {len(images)} of the notebook]({image})")
            elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
                pieces.append(f"```text\n{text}\n```")
    pieces.append(f"This page is a notebook: [{name}.ipynb]({name}.ipynb). The tests execute it.")
    return "\n\n".join(pieces) + "\n", images
