"""How every benchmark ends: its result as one line of JSON, the last that it prints, and in a file if one is named."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2l.files import write_text


def finish(result: Mapping[str, Any], out: Path | None) -> None:
    line = json.dumps(result)
    if out:
        write_text(out, line + "\n")
    print(line)
