"""Copy an experiment's figures (PNG), tables and results for readers, with an index of captions.

From the results kept here everything can be drawn again (`results_table`); the long table of single
examples is compressed.
"""

import gzip
import re
import shutil
from pathlib import Path

from PIL import Image

from robust_flatness.plotting.notebook import NOT_DRAWN

snakemake = snakemake  # noqa: F821 (given by Snakemake)
target = Path(snakemake.params.directory)
captions = snakemake.params.captions
shutil.rmtree(target, ignore_errors=True)
target.mkdir(parents=True)


def title(folder: str, name: str) -> str:
    """A notebook's heading."""
    text = Path(snakemake.params.notebooks, folder, f"{name}.py").read_text(encoding="utf-8")
    return re.search(r"^# # (.*)$", text, re.MULTILINE)[1]


def in_order(paths, kind: str) -> list[Path]:
    """Files in the order of the captions, those without one last."""
    order = [*captions[kind]]
    return sorted(map(Path, paths), key=lambda path: [*order, path.stem].index(path.stem))


figures, lacking = [], []
for path in (path for path in in_order(snakemake.input.figures, "figures") if path.suffix == ".png"):
    picture = Image.open(path)
    if NOT_DRAWN in picture.info:
        lacking.append(f"- {title('figures', path.stem)}: {picture.info[NOT_DRAWN]}")
        continue
    picture.convert("RGB").save(target / path.name, optimize=True)
    words = captions["figures"].get(path.stem, path.stem)
    figures += [f"## {title('figures', path.stem)}", "", words, "", f"![{path.stem}]({path.name})", ""]

tables = []
for path in in_order(snakemake.input.tables, "tables"):
    if path.suffix in {".csv", ".md"}:
        shutil.copyfile(path, target / path.name)
    if path.suffix == ".md":
        words = captions["tables"].get(path.stem, path.stem)
        heading = title("paper_tables", path.stem)
        tables.append(f"- [{heading}]({path.name}) ([CSV]({path.stem}.csv)): {words}")
for path in map(Path, snakemake.input.results):
    if path.stem == "examples":
        (target / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    else:
        shutil.copyfile(path, target / path.name)

index = [f"# {target.name}", "", snakemake.params.description, ""]
results = [
    "- [records.csv](records.csv): every measured number, a row each; [networks.csv](networks.csv): how each "
    "network was trained and measured; [history.csv](history.csv): training curves; "
    "[examples.csv.gz](examples.csv.gz): losses and errors of single examples; [models.csv](models.csv): the "
    "records as a wide table.",
    "",
]
index += ["## Tables", "", *tables, *results, *figures]
index += ["## Not drawn", "", *lacking, ""] if lacking else []
(target / "README.md").write_text("\n".join(index).rstrip() + "\n", encoding="utf-8")

names = sorted(path.parent.name for path in target.parent.glob("*/README.md"))
lines = [
    "# Results kept for readers",
    "",
    "Figures with captions, tables and models.csv of each experiment:",
    "",
]
lines += [f"- [{name}]({name}/README.md)" for name in names]
(target.parent / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
