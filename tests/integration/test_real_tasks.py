"""Real tasks go through the whole of a run: long inputs, several right answers, any script, tasks of one wording."""

from pathlib import Path

import pytest
from tiny import tiny_settings

from t2l.cluster.alone import train_alone
from t2l.config import load_config, parse_config
from t2l.evaluation.records import Record

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not here: it is no part of the repository")
def test_fifteen_tasks_of_super_natural_instructions(tiny_base: Path, tmp_path: Path) -> None:
    recipe = load_config(
        ROOT / "jobs/configs/natural_instructions.yaml",
        [f"data.path={SHARED}/super_natural_instructions", f"data.descriptions={SHARED}/t2l_task_descriptions.tar.gz"],
    )
    settings = tiny_settings(tiny_base, tmp_path, steps=2, eval_every=2, report_inputs=2)
    limits = {"num_descriptions": 2, "max_prompt_tokens": 48, "max_response_tokens": 16}
    done = train_alone(parse_config(settings | {"data": recipe.data.model_dump() | limits}))
    found = {(record.method, record.wording, record.split): record for record in done.report}
    wordings = ("unseen", "seen", "shuffled", "junk", "static")
    assert {key for key in found if key[0] == "t2l"} == {
        ("t2l", wording, split) for wording in wordings for split in ("seen", "unlisted")
    }
    assert [num_tasks(found["t2l", "unseen", split]) for split in ("seen", "unlisted")] == [5, 8]
    assert all(0 <= record.score <= 1 for record in done.report)


def num_tasks(record: Record) -> int:
    return len(record.by_task)
