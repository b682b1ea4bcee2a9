"""The report of a GPU, run on the processor at tiny sizes."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_parts_run_and_fail_alone(tmp_path):
    output = tmp_path / "report.json"
    parts = ["machine", "epoch", "rloss", "flatness", "autoattack"]
    subprocess.run(
        [sys.executable, SCRIPT, "--device", "cpu", "--quick", "--output", output, "--parts", *parts],
        check=True, capture_output=True,
    )  # fmt: skip
    report = json.loads(output.read_text())
    assert list(report) == parts
    assert not [name for name, part in report.items() if "FAILED" in part]
