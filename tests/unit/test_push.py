"""`t2l push` against a local server of the hub's API: what arrives there, and one sentence where nothing can."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hub_stub import TOKEN, Hub, serving
from huggingface_hub import constants
from lora_models import random_weights, tiny_config
from typer.testing import CliRunner, Result

from t2l.cli import app
from t2l.interop.push import operations
from t2l.lora import LoraSpec
from t2l.lora.peft_io import save_peft
from t2l.text.nearness import NEARNESS_FILE


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)  # what HF_ENDPOINT sets
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("COLUMNS", "300")
        yield hub


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    weights = random_weights(LoraSpec.from_config(tiny_config("llama"), ["q_proj"]), 1)
    folder = save_peft(weights, 0, tmp_path / "adapter", "org/base", "Sort the words.")
    (folder / "secret.txt").write_text("not for others")
    return folder


def push(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["push", *map(str, arguments)])


def refused(*arguments: object) -> str:
    result = push(*arguments)
    assert result.exit_code == 1, result.output
    [line] = result.stderr.splitlines()
    return line


def test_an_adapter_arrives_whole_and_private(hub: Hub, adapter: Path) -> None:
    result = push(adapter, "me/sorter")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == f"{hub.url}/me/sorter/commit/1"
    assert hub.repos == {"me/sorter": "private"}
    names = ("README.md", "adapter_config.json", "adapter_model.safetensors")
    assert hub.files["me/sorter"] == {name: (adapter / name).read_bytes() for name in names}
    assert list(hub.objects.values()) == [(adapter / "adapter_model.safetensors").read_bytes()]
    assert push(adapter, "me/sorter").exit_code == 0, "once more, into the repository that is there"


def test_a_checkpoint_arrives_without_the_path_of_its_base(hub: Hub, tiny_checkpoint: Path) -> None:
    result = push(tiny_checkpoint, "me/t2l", "--public")
    assert result.exit_code == 0, result.output
    assert hub.repos == {"me/t2l": "public"}
    files = hub.files["me/t2l"]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    card = files["README.md"].decode()
    assert "base_model" in (tiny_checkpoint / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1]) == {"tags": ["text-to-lora", "lora"]}


def test_the_shipped_checkpoint_takes_its_nearness_along() -> None:
    from t2l.embedded import CHECKPOINT_DIR

    assert NEARNESS_FILE in {file.path_in_repo for file in operations(CHECKPOINT_DIR)}


def test_a_dry_run_lists_files_and_sizes_and_sends_nothing(hub: Hub, adapter: Path) -> None:
    result = push(adapter, "me/sorter", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "would be pushed to me/sorter (private)" in result.stdout
    assert f"{(adapter / 'adapter_model.safetensors').stat().st_size:,}" in result.stdout
    assert "secret" not in result.stdout
    assert hub.repos == {}


def test_refusals_are_one_sentence(hub: Hub, adapter: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "'a b' is no name of a repository" in refused(adapter, "a b")
    assert "'me' is no whole name of a repository: write it as owner/name" in refused(adapter, "me", "--dry-run")
    assert "nope does not exist" in refused(adapter.parent / "nope", "me/sorter")
    assert "push that with transformers' push_to_hub" in refused(tiny_base, "me/sorter")
    assert "is no t2l checkpoint: it lacks config.json" in refused(adapter.parent, "me/sorter")
    for status in (401, 403):
        hub.status = status
        monkeypatch.setenv("HF_TOKEN", "hf_other")
        line = refused(adapter, "me/sorter")
        assert f"refuses to let this token write to 'me/sorter' (status {status})" in line
    hub.status = 500
    assert "answered 500 for 'me/sorter': no right to write" in refused(adapter, "me/sorter")
    monkeypatch.delenv("HF_TOKEN")
    assert "there is no token for the hub: log in with `hf auth login`" in refused(adapter, "me/sorter")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (adapter / "README.md").write_text("---\nlicense: my-own\n---\n")
    line = refused(adapter, "me/sorter")
    assert "refuses the card" in line
    assert '"license" is not valid' in line
    (adapter / "README.md").unlink()
    assert "cannot be pushed: it lacks README.md" in refused(adapter, "me/sorter")


def test_no_hub_is_one_sentence(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("COLUMNS", "300")
    assert "the hub at http://127.0.0.1:9 cannot be reached" in refused(adapter, "me/sorter")
