"""What cannot be written is named; a folder is in one process's hands at a time, free again however that ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from t2l.errors import ResourceError
from t2l.files import complete_folder, sole_user, write_text

HOLD = """
import os, sys, time
from pathlib import Path
from t2l.files import sole_user
with sole_user(Path(sys.argv[1])):
    if os.fork():  # as a loader's processes are made
        print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with sole_user(tmp_path / "free"):
        pass
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ResourceError, match="another process is at work in"), sole_user(tmp_path):
            pass
        other.kill()
        other.wait()
        with sole_user(tmp_path):
            pass


@pytest.mark.parametrize("inner", ["x", "x/y"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, inner: str) -> None:
    (tmp_path / "file").write_text("in the way")
    for place, folder in ((Path("/proc"), "/proc"), (tmp_path / "file", tmp_path / "file")):
        said = rf"cannot write in {folder} \(.+\): choose another folder"
        with pytest.raises(ResourceError, match=said):
            write_text(place / inner, "text")
        with pytest.raises(ResourceError, match=said), complete_folder(place / inner):
            pass
        with pytest.raises(ResourceError, match=said), sole_user(place / inner):
            pass
