"""Settings as YAML: read back as they were, with what each is for."""

from pathlib import Path

import pytest
import yaml

from t2l.config import RunConfig, TrainConfig, dump_config, load_config, parse_config

RECIPES = sorted((Path(__file__).parents[2] / "jobs" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_read_back_as_they_were(recipe: Path, tmp_path: Path) -> None:
    config, file = load_config(recipe), tmp_path / "dumped.yaml"
    file.write_text(dump_config(config))
    assert load_config(file) == config


@pytest.mark.parametrize("name", ["a # b", "a: b", "'\"", "two\nlines", "yes", "1e-3", "ö✓", "- x", "null", ""])
def test_any_text_is_read_back(name: str) -> None:
    config = RunConfig.model_validate({"name": name, "encoder": {"probes": [name, f"{name}, {name}"]}})
    assert parse_config(yaml.safe_load(dump_config(config))) == config


def test_each_setting_says_what_it_is_for() -> None:
    text = dump_config(RunConfig())
    about = TrainConfig.model_fields["tasks_per_step"].description
    assert about and f"\n  tasks_per_step: 8  # {about}\n" in text
    assert "\nbase:\n  path: embedded  # Folder or hub name; embedded: the packaged base model.\n" in text
