import subprocess
import sys

import pytest
import torch
from torch import nn

from robust_flatness.attacks import PGD
from robust_flatness.config import ConfigError, TrainingSpec
from robust_flatness.experiment import ComputeSpec
from robust_flatness.flatness import average_flatness
from robust_flatness.runtime import devices, provenance
from robust_flatness.runtime.progress import show_progress, stage
from robust_flatness.workflow import gpus_here


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """Pretend that torch sees two GPUs, whose locks lie in a folder of the test."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    named = [type("Card", (), {"uuid": f"card-{i}"}) for i in range(2)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: named[index])
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(devices, "_taken", [])
    flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    deterministic = torch.backends.cudnn.deterministic
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    yield
    for lock in devices._taken:
        lock.release()
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = flags
    torch.backends.cudnn.deterministic = deterministic


def test_names_of_devices():
    for name in ("auto", "cpu", "cuda", "cuda:3", "mps"):
        assert ComputeSpec(device=name).device == name
    for name in ("gpu", "cuda:", "cuda:x", "cpu:0", ""):
        with pytest.raises(ValueError, match="cuda"):
            ComputeSpec(device=name)
        with pytest.raises(ConfigError, match="cuda"):
            devices.start(name, 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_without_a_gpu_auto_is_the_processor_and_cuda_an_error():
    if not torch.backends.mps.is_available():
        assert devices.start("auto", 1) == "cpu"
    with pytest.raises(ConfigError, match="cuda:1"):
        devices.start("cuda:1", 1)


def test_jobs_take_a_gpu_each_and_float32_is_float32(gpus):
    torch.backends.cuda.matmul.allow_tf32 = True
    assert devices.start("auto", 1) == "cuda:0"
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.deterministic
    # the first is in use by now
    assert devices.start("cuda", 1) == "cuda:1"
    assert devices.start("cuda", 1) == "cuda:0"
    assert devices.start("cuda:1", 1) == "cuda:1"
    with pytest.raises(ConfigError, match="2 GPUs"):
        devices.start("cuda:2", 1)


def test_auto_is_the_fast_precision_of_the_device(monkeypatch):
    monkeypatch.setattr(devices, "auto_precision", lambda device: "bfloat16")
    for given, used in (("auto", "bfloat16"), ("float32", "float32")):
        spec = TrainingSpec(epsilon=0.1, precision=given)
        assert devices.with_precision_on("cpu", spec).precision == used


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("2", 1), ("0,3", 2)])
def test_a_local_run_counts_the_gpus_it_may_use(visible, count, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_here() == count


def test_the_digest_of_the_package_changes_with_any_module(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    (tmp_path / "inner").mkdir()
    digests = set()
    for text in ("a = 1", "a = 2"):
        (tmp_path / "inner/module.py").write_text(text)
        digests.add(provenance.package_digest.__wrapped__())
    assert len(digests) == 2


def test_the_outermost_loop_of_several_items_shows_a_bar_and_results_stay_the_same(monkeypatch):
    from rich.progress import Progress

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x, y, attack = torch.rand(6, 1, 4, 4), torch.arange(6) % 3, PGD(0.1, 0.05, 3, restarts=2)
    shown, original = [], Progress.add_task
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    noted = lambda self, *a, **k: shown.append(a[0]) or original(self, *a, **k)  # noqa: E731
    monkeypatch.setattr(Progress, "add_task", noted)

    def measure():
        return average_flatness(model, x, y, attack=attack, samples=3, batch_size=2).value

    expected = measure()
    assert not shown
    with show_progress(), stage("flatness"):
        assert measure() == expected
    assert shown[-1] == "flatness: sample"


@pytest.mark.parametrize(("package", "found"), [("src/package", True), ("venv/lib/package", False)])
def test_commit_is_that_of_the_packages_own_repository(package, found, tmp_path, monkeypatch):
    (tmp_path / package).mkdir(parents=True)
    commit = "git init -q && git -c user.name=a -c user.email=a commit -q --allow-empty -m a"
    subprocess.run(commit, shell=True, check=True, cwd=tmp_path)
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / package)
    assert (provenance.git_commit.__wrapped__() is not None) == found
