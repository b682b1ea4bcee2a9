"""The page as one self-contained HTML file."""

import json
from html import escape
from importlib.resources import files
from pathlib import Path

from robust_flatness.files import write_text
from robust_flatness.page.data import page_data
from robust_flatness.plotting.notebook import Notebook


def write_page(notebook: Notebook, path: Path, description: str = "") -> None:
    """Write the page of an experiment to `path`, with its description under the title. The file needs no
    network; verdicts, correlations and comparison come from `paper_tables/<experiment>/` if they exist."""
    import vl_convert

    def part(name: str) -> str:
        return files("robust_flatness.page").joinpath(name).read_text(encoding="utf-8")

    folder = notebook.directory.resolve().parents[1] / "paper_tables" / notebook.experiment
    parts = {"experiment": notebook.experiment, "description": f": {escape(description)}" * bool(description)}
    parts |= {"style": part("page.css"), "vega": vl_convert.javascript_bundle()}
    data = json.dumps(page_data(notebook, folder), separators=(",", ":"), allow_nan=False)
    # In a script element, "</" may not stand.
    parts |= {"data": data.replace("</", "<\\/"), "script": part("page.js")}
    text = part("template.html")
    for name, value in parts.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    write_text(path, text)
