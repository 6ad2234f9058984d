"""The layout of docs/architecture.md, enforced: imports point one way, Ray stays at the edge."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "memory": set(),
    "graphs": set(),
    "kernels": {"errors"},
    "config": {"errors"},
    "hub": {"errors"},
    "storage": {"config", "errors"},
    "lora": {"errors", "kernels"},
    "hypernet": {"config", "errors", "kernels", "lora"},
    "tasks": {"errors", "hub"},
    "text": {"config", "errors", "hub", "tasks"},
    "data": {"config", "errors", "hub", "tasks", "text"},
    "checkpoint": {"config", "errors", "hypernet", "lora"},
    "embedded": {"config", "lora", "tasks", "text"},
    "train": {
        "config", "data", "embedded", "errors", "hub", "hypernet", "kernels", "lora", "memory", "storage", "tasks",
        "text",
    },
    "evaluation": {"config", "errors", "lora", "tasks", "text"},
    "text_to_lora": {
        "checkpoint", "config", "embedded", "errors", "evaluation", "hypernet", "lora", "storage", "tasks", "text",
        "train",
    },
    "cluster": {
        "checkpoint", "config", "data", "embedded", "errors", "evaluation", "hub", "hypernet", "lora", "tasks", "text",
        "storage", "text_to_lora", "train",
    },
    "describe": {"errors", "tasks"},
    "interop": {"checkpoint", "config", "errors", "files", "hub", "hypernet", "lora", "text_to_lora"},
    "evidence": {"errors"},
    "report": {"config", "data", "errors", "evaluation", "lora", "tasks", "text", "text_to_lora"},
    "cli": {
        "config", "data", "describe", "embedded", "errors", "hub", "interop", "report", "tasks", "text", "text_to_lora",
    },
    "__init__": {"text_to_lora"},
}  # fmt: skip
FILES = sorted((ROOT / "t2l").rglob("*.py"))
ENTRIES = sorted(path for folder in ("jobs", "serve", "tune") for path in (ROOT / folder).rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "t2l":
                yield from (f"t2l.{alias.name}" for alias in node.names if alias.name.islower())


def _part(path: Path) -> str:
    return path.relative_to(ROOT / "t2l").with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = _part(path)
    used = {name.split(".")[1] for name in _imports(path) if name.startswith("t2l.")} - {own}
    allowed = ALLOWED[own] | {"files"}
    assert used <= allowed, f"{path.name} imports {sorted(used - allowed)}"


def test_the_table_has_no_cycle() -> None:
    order: list[str] = []
    while len(order) < len(ALLOWED):
        ready = [part for part, needs in ALLOWED.items() if part not in order and needs <= set(order)]
        assert ready, f"a cycle among {sorted(set(ALLOWED) - set(order))}"
        order += ready


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_ray_appears_in_cluster_only(path: Path) -> None:
    if _part(path) != "cluster":
        assert not any(name.split(".")[0] == "ray" for name in _imports(path))


@pytest.mark.parametrize("path", FILES + ENTRIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_entry_folders_are_used_by_themselves_alone(path: Path) -> None:
    folders = {"jobs", "serve", "tune", "benchmarks"} - {path.relative_to(ROOT).parts[0]}
    assert not folders & {name.split(".")[0] for name in _imports(path)}


@pytest.mark.parametrize("module", ["t2l", "t2l.config", "t2l.errors", "t2l.cli"])
def test_light_modules_import_neither_torch_nor_ray(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'ray', 'transformers'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", FILES + ENTRIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
