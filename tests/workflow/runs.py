"""Runs of the workflow in a folder of a test."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}


def command(*arguments, config="config.yaml", cores=2, python=(sys.executable,), root=ROOT) -> list[str]:
    parts = [*python, "-m", "snakemake", "--snakefile", root / "Snakefile", "--cores", cores]
    parts += ["--workflow-profile", root / "profiles/default", "--configfile", config]
    return [str(part) for part in (*parts, *arguments)]


def snakemake(folder: Path, *arguments, **options) -> subprocess.CompletedProcess:
    """Run the workflow in a folder, with the options of `command`."""
    parts = command(*arguments, **options)
    environment = ENVIRONMENT | {"PYTHONPATH": str(options.get("root", ROOT) / "src")}
    return subprocess.run(parts, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def succeeded(done: subprocess.CompletedProcess) -> str:
    """All that a run said, which has to be a success."""
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def prepared_folder(path: Path, config: dict) -> Path:
    """A new folder with a config file."""
    path.mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def contents(directory: Path, *folders: str) -> dict[str, bytes]:
    """The files of `results` (and other folders), without timings and the state of jobs."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for folder in ("results", *folders)
        for path in sorted((directory / folder).rglob("*"))
        if path.is_file() and not {"timings", ".resume"} & set(path.parts)
    }
