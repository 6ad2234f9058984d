"""Where a worker stands among the others."""

from dataclasses import dataclass
from pathlib import Path

import torch

from t2l.cluster.records import Tell
from t2l.config import RunConfig
from t2l.data.cache import Caches
from t2l.data.shared import SharedWork
from t2l.train.base import base_path


@dataclass(frozen=True)
class Place:
    """Which worker of how many, on what device, writing where; and how workers wait for each other."""

    run_dir: Path
    rank: int = 0
    world_size: int = 1
    device: str = "cpu"

    def wait_for_all(self) -> None:
        if self.world_size > 1:
            torch.distributed.barrier()

    def agree(self, number: int) -> int:
        """The first worker's number."""
        if self.world_size == 1:
            return number
        tensor = torch.tensor(number, device=self.device)
        torch.distributed.broadcast(tensor, src=0)
        return int(tensor)

    def caches(self, config: RunConfig, tell: Tell) -> Caches:
        """What this run may take over from others, and leave to them."""
        folder = Path(config.cache_dir) if config.cache_dir else self.run_dir.parent / "cache"
        return Caches(folder, lambda note: tell({"note": note}))

    def shared_work(self, name: str, config: RunConfig, *settings: object) -> SharedWork:
        """Work on the frozen base that is shared out over workers, kept in <run>/<name>; `settings` it depends on."""
        key = " ".join(map(str, (base_path(config.base), config.base.dtype, *settings)))
        return SharedWork(self.run_dir / name, key, self.rank, self.world_size)
