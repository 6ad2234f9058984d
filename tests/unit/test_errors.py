import inspect
import pickle
from pathlib import Path

import pytest

from t2l import errors
from t2l.config import ReconConfig, load_config, load_pretrain_config

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_survive_pickling(cls: type[errors.T2LError]) -> None:
    again = pickle.loads(pickle.dumps(cls("rank 0 is too small: give 1 or more")))
    assert type(again) is cls
    assert str(again) == "rank 0 is too small: give 1 or more"


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not errors.T2LError])
def test_what_a_user_gets_wrong_is_a_value_error(cls: type[errors.T2LError]) -> None:
    assert issubclass(cls, ValueError)
    assert issubclass(cls, errors.T2LError)
    assert cls.__doc__


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data=jsonl", r"'data' is 'jsonl': write data\.suite=\.\.\. with one of universe, sub_universe, jsonl"),
        ("data=[1]", r"'data' is \[1\]: write data\.suite="),
        ("train=sft", r"'train' is 'sft': write train\.objective=\.\.\. with one of sft, distill, recon"),
        ("train=", r"'train' is None: write train\.objective="),
        (
            "data={suite: jsonl",
            r"the value in 'data=\{suite: jsonl' is no valid YAML \(expected .*, line 1, column 14\)",
        ),
        ("name=2026-13-01", "the value in 'name=2026-13-01' is no valid YAML"),
        ("name=../elsewhere", r"'name' is '?\.\./elsewhere'?: .*leave out '\.\.'"),
        ("name=/elsewhere", r"'name' is '?/elsewhere'?: .*a folder below output_dir"),
        ("encoder.kinds=[]", r"'encoder\.kinds' is \[\]: give at least 1"),
        ("encoder.reader={num_heads: 3}", r"'encoder\.reader\.num_heads' is 3: .*width 256 must be a multiple"),
        ("encoder.reader={width: 30}", r"'encoder\.reader\.num_heads' is 4: .*width 30 must be a multiple"),
        ("encoder.reader={width: 0}", r"'encoder\.reader\.width' is 0"),
    ],
)
def test_a_wrong_setting_is_named(override: str, said: str) -> None:
    with pytest.raises(errors.ConfigError, match=said):
        load_config(None, [override])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["minutes={"], r"the value in 'minutes=\{' is no valid YAML"),
        (["minutes=0"], "'minutes' is 0"),
        (["num_heads=3"], "hidden_size 256 must be a multiple of 2 x num_heads 3"),
        (["num_kv_heads=3"], "a multiple of num_kv_heads 3"),
        (["definition_share=0.9"], "together at most 1"),
    ],
)
def test_wrong_settings_of_pretraining_are_named(overrides: list[str], said: str) -> None:
    with pytest.raises(errors.ConfigError, match=said):
        load_pretrain_config(overrides)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: a\ntrain: {steps: 3", "is no valid YAML .*line 2, column 17"),
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        (b"- train\n- data\n", "holds no settings, but list: write key: value"),
        (b"0", "holds no settings, but int"),
    ],
)
def test_a_config_file_that_holds_no_settings(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(errors.ConfigError, match=rf"config\.yaml {said}"):
        load_config(path)
    path.write_text("# nothing but a comment\n")
    assert load_config(path) == load_config(None)


def test_folders_are_absolute_and_names_stay_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of Ray Train have working directories of their own."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "embedded", "org/model"):
        (tmp_path / name).mkdir(parents=True)
    recon = ["train.objective=recon", "train.library=lib"]
    run = load_config(None, ["base.path=mine", "encoder.model=org/model", *recon])
    assert (run.base.path, run.encoder.model) == (str(tmp_path / "mine"), str(tmp_path / "org/model"))
    assert isinstance(run.train, ReconConfig) and run.train.library == str(tmp_path / "lib")
    assert load_config(None, ["base.path=other/model"]).base.path == "other/model"
    assert load_config(None, ["base.path=embedded"]).base.path == "embedded", "the packaged one"
