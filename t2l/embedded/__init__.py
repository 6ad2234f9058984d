"""The embedded default: a small base model and a trained T2L checkpoint, shipped with the package."""

from pathlib import Path

BASE_DIR = Path(__file__).parent / "base"
CHECKPOINT_DIR = Path(__file__).parent / "t2l"
