"""Copy an experiment's figures (PNG, reduced to a palette), tables and models.csv for readers."""

import shutil
from pathlib import Path

from PIL import Image

target = Path(snakemake.params.directory)  # noqa: F821 (given by Snakemake)
shutil.rmtree(target, ignore_errors=True)
target.mkdir(parents=True)
inputs = snakemake.input  # noqa: F821
for name in map(Path, inputs.figures):
    if name.suffix == ".png":
        Image.open(name).convert("RGB").quantize(128).save(target / name.name, optimize=True)
for name in map(Path, (*inputs.tables, inputs.models)):
    if name.suffix in {".csv", ".md"}:
        shutil.copyfile(name, target / name.name)
