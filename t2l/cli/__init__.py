"""The `t2l` command. Thin: torch and transformers are imported by the commands that need them, so help is instant."""

from t2l.cli import blend, decontaminate, describe, generate, import_, push, refine, report, run
from t2l.cli.common import app

__all__ = ["app", "blend", "decontaminate", "describe", "generate", "import_", "push", "refine", "report", "run"]
