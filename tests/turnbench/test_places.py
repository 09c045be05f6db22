"""Where things are kept: in the checkout, or in the user's folders where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnbench import places

ROOT = Path(__file__).parents[2]


def test_a_checkout_keeps_everything_inside_itself() -> None:
    assert places.state_folder() == ROOT / ".serve"
    assert places.cache_folder() == ROOT / "build"
    assert places.vllm_environment() == ROOT / ".venv-vllm"
    assert places.data_file("constraints-vllm.txt").is_file()


def test_an_installed_one_uses_the_users_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(places, "CHECKOUT", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert places.state_folder() == tmp_path / ".local/state/turnbench"
    assert places.cache_folder() == Path("/elsewhere/turnbench")
    assert places.vllm_environment() == tmp_path / ".local/share/turnbench/venv-vllm"
    assert places.data_file("models.yaml") == Path(places.__file__).parent / "data" / "models.yaml"


def test_another_state_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(places.STATE, str(tmp_path))
    assert places.state_folder() == tmp_path
