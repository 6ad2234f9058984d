"""A cache gives back what was put in, to any number of processes, and what is lost of it is made again."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2l.data.cache import ArrowCache, Caches, Record, content_key

RAGGED = st.lists(
    st.tuples(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9), st.lists(st.floats(width=16), max_size=5)),
    max_size=30,
)


def record(ids: list[int], floats: list[float]) -> Record:
    return {"ids": np.array(ids, np.int32), "states": np.array(floats, np.float16)}


def same(found: Record | None, expected: Record) -> bool:
    return found is not None and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array, equal_nan=array.dtype.kind == "f")
        for name, array in expected.items()
    )


@given(RAGGED, st.sets(st.integers(0, 29)))
@settings(max_examples=50, deadline=None)
def test_every_record_comes_back_from_memory_and_from_files(
    tmp_path_factory: pytest.TempPathFactory, sources: list[tuple[list[int], list[float]]], flushes: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    cache, keys = ArrowCache(folder), [content_key(number) for number in range(len(sources))]
    records = [record(*source) for source in sources]
    for number, (key, made) in enumerate(zip(keys, records, strict=True)):
        cache.add(key, made)
        if number in flushes:
            cache.flush()
    assert all(map(same, cache.find(keys), records))
    cache.flush()
    for other in (cache, ArrowCache(folder), pickle.loads(pickle.dumps(cache))):
        assert all(map(same, other.find(keys), records))
        assert other.find([content_key("never put in"), b""]) == [None, None]


def filled(folder: Path, numbers: range) -> ArrowCache:
    cache = ArrowCache(folder)
    for number in numbers:
        cache.add(content_key(number), record([number] * 3, []))
    cache.flush()
    return cache


def test_what_others_have_written_is_not_written_again(tmp_path: Path) -> None:
    late = ArrowCache(tmp_path)
    filled(tmp_path, range(5))
    for number in range(5):
        late.add(content_key(number), record([number] * 3, []))
    late.flush()
    assert len(list(tmp_path.iterdir())) == 1
    assert same(late.find([content_key(4)])[0], record([4] * 3, []))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-9],
    "one bit": lambda content: content[:400] + bytes([content[400] ^ 1]) + content[401:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_dropped_with_a_note_and_made_again(tmp_path: Path, damage: str) -> None:
    filled(tmp_path, range(5))
    [path] = tmp_path.iterdir()
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    notes: list[str] = []
    cache = ArrowCache(tmp_path, notes.append)
    assert notes == [f"{path} is damaged: what it held is made again"]
    assert cache.find([content_key(0)]) == [None]
    assert same(filled(tmp_path, range(5)).find([content_key(3)])[0], record([3] * 3, []))


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    notes: list[str] = []
    cache = ArrowCache(tmp_path / "file/cache", notes.append)
    cache.add(content_key(1), record([1], []))
    cache.flush()
    assert len(notes) == 1 and "cannot be written" in notes[0]


def test_files_grow_with_the_cache(tmp_path: Path) -> None:
    cache = ArrowCache(tmp_path)
    for number in range(200):
        cache.add(content_key(number), {"states": np.full(1 << 16, number, np.float16)})  # 25 MiB in all
    assert 8 <= len(list(tmp_path.iterdir())) <= 25


def test_settings_have_folders_of_their_own(tmp_path: Path) -> None:
    caches = Caches(tmp_path)
    for settings_ in (("a", 1), ("a", 2), ("a1",), ("a", "1"), (["a", 1],)):
        cache = caches.open("things", *settings_)
        assert cache.find([content_key("x")]) == [None]
        cache.add(content_key("x"), record([1], []))
        cache.flush()
    assert len(list((tmp_path / "things").iterdir())) == 5


WRITER = """
import sys, pathlib
sys.path.insert(0, "tests/unit")
from test_cache import filled
filled(pathlib.Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[2]) + 300))
"""


def test_processes_may_write_at_once(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(start)], cwd=root) for start in (0, 200)
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    found = ArrowCache(tmp_path).find([content_key(number) for number in range(500)])
    assert all(same(there, record([number] * 3, [])) for number, there in enumerate(found))
