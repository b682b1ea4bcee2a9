"""Copy an experiment's figures (PNG), tables and results for readers, with an index of captions.

From the results kept here everything can be drawn again (`results_table`), and rows join those of other runs
(`merge`); the long table of single examples is packed.
"""

import gzip
import shutil
from pathlib import Path

from PIL import Image

from robust_flatness.plotting.notebook import NOT_DRAWN

snakemake = snakemake  # noqa: F821 (given by Snakemake)
target = Path(snakemake.params.directory)
captions = snakemake.params.captions
shutil.rmtree(target, ignore_errors=True)
target.mkdir(parents=True)

figures, lacking = [], []
for path in (Path(name) for name in snakemake.input.figures if name.endswith(".png")):
    picture = Image.open(path)
    if NOT_DRAWN in picture.info:
        lacking.append(f"- `{path.stem}`: {picture.info[NOT_DRAWN]}")
        continue
    picture.convert("RGB").save(target / path.name, optimize=True)
    words = captions["figures"].get(path.stem, path.stem)
    figures += [f"## {path.stem.replace('_', ' ')}", "", words, "", f"![{path.stem}]({path.name})", ""]

tables = []
for path in map(Path, snakemake.input.tables):
    if path.suffix in {".csv", ".md"}:
        shutil.copyfile(path, target / path.name)
    if path.suffix == ".md":
        words = captions["tables"].get(path.stem, path.stem)
        tables.append(f"- [{path.stem.replace('_', ' ')}]({path.name}) ([CSV]({path.stem}.csv)): {words}")
for path in map(Path, snakemake.input.results):
    if path.stem == "examples":
        (target / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    else:
        shutil.copyfile(path, target / path.name)

index = [f"# {target.name}", "", snakemake.params.description, ""]
results = [
    "- [models.csv](models.csv): every measure of every model; [history.csv](history.csv), "
    "[series.csv](series.csv), [landscape.csv](landscape.csv), [examples.csv.gz](examples.csv.gz): curves, "
    "snapshots, landscapes, losses of single examples.",
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
