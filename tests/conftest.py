"""One thread per test process: small tensors gain nothing from more, and bits stay the same."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _threads():
    """Jobs in the process of the tests set the number of threads."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """`run(*arguments)` -> (exit status, standard output, standard error), in `tmp_path`."""
    from robust_flatness import cli

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["robust-flatness", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as exit_:
            status = exit_.code or 0
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def refused(run):
    """`refused(words, *arguments)`: exit status 1 and one message with all the words."""

    def check(words, *arguments):
        status, out, err = run(*arguments)
        assert status == 1
        assert err.startswith("error: ")
        assert "Traceback" not in err + out
        missing = [word for word in words if word not in err]
        assert not missing, err
        return err

    return check


@pytest.fixture(scope="session")
def plain():
    """The plain implementation of the measures, of the benchmarks."""
    path = Path(__file__).parents[1] / "benchmarks/plain.py"
    spec = importlib.util.spec_from_file_location("plain", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
