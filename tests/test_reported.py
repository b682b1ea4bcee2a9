"""Programs after public reports of users; each ends with 0 if all is as it should be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("case", sorted((ROOT / "tests/reported").iterdir()), ids=lambda path: path.name)
def test_case(case):
    command = [sys.executable, "-P"] if case.suffix == ".py" else ["bash"]
    environment = {**os.environ, "PY": sys.executable, "ROOT": str(ROOT), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([*command, case], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
