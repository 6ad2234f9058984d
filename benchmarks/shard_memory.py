"""What a worker holds of a base model that is partitioned over workers, against one that holds all of it, on CPUs.

    python benchmarks/shard_memory.py --out benchmarks/results/shard_memory_cpu.json

A random Llama is written to disk once. Workers (gloo) load it, then each takes one SFT step through it: the bytes of
weights that a worker keeps, the peaks of its memory over that before, how far the adapters' gradient is off.
"""

import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from harness import finish, head, make_parser
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import spawn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from t2l.config import BaseConfig
from t2l.data.collate import Row, collate
from t2l.embedded import BASE_DIR
from t2l.embedded.tokenizer import load_tokenizer
from t2l.lora.apply import PerRowLora
from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights
from t2l.train.base import load_base
from t2l.train.shard import load_sharded_base
from t2l.train.step import label_logits

WORKERS = (2, 4)
MIB = 1 << 20


def save_base(folder: Path, layers: int, width: int) -> int:
    """Number of parameters."""
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder, max_shard_size="200MB")
    load_tokenizer(str(BASE_DIR)).save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


class Peak:
    """The most memory that this process has had since `start`, sampled: without files that are mapped, whose pages the
    system may drop.
    """

    def __init__(self) -> None:
        self.start = self.most = _anonymous_bytes()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, _anonymous_bytes())
            time.sleep(0.002)

    @property
    def mib(self) -> int:
        return (self.most - self.start) // MIB


def _anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) << 10


def with_lora(model: PreTrainedModel) -> PerRowLora:
    return PerRowLora(model, LoraSpec.from_config(model.config, ["q_proj", "v_proj"], rank=8))


def gradient(lora: PerRowLora) -> Tensor:
    """Of random adapters, by the summed log-likelihood of one batch."""
    torch.manual_seed(0)
    spec, rows = lora.spec, 4
    A = {m.name: torch.randn(rows, spec.num_layers, spec.rank, m.in_features) * 0.02 for m in spec.modules}
    B = {m.name: torch.randn(rows, spec.num_layers, m.out_features, spec.rank) * 0.02 for m in spec.modules}
    weights = LoraWeights(spec, A, {name: tensor.requires_grad_() for name, tensor in B.items()})
    batch = collate([Row(ids, [0], 0) for ids in torch.randint(0, 1000, (rows, 64)).tolist()], rows, pad_id=0)
    label_logits(lora, weights, batch).log_softmax(-1)[:, 0].sum().backward()
    return torch.cat([tensor.grad.flatten() for tensor in B.values() if tensor.grad is not None])


def worker(rank: int, size: int, port: int, folder: str, shard: bool, out: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=size)
    load = load_sharded_base if shard else load_base
    gradient(with_lora(load(BaseConfig(), "cpu")[0]))  # what comes with any model is no part of the measurement
    peak = Peak()
    model, _ = load(BaseConfig(path=folder), "cpu")
    if not shard:
        for parameter in model.parameters():  # they lie in the mapped file; on a device they would not
            parameter.data = parameter.data.clone()
    loading = peak.mib
    held = (
        sum(part.to_local().nbytes if isinstance(part, DTensor) else part.nbytes for part in model.parameters()) // MIB
    )
    lora, start = with_lora(model), time.perf_counter()
    found = gradient(lora)
    seconds = time.perf_counter() - start
    if rank == 0:
        measured = {"weights_mib": held, "peak_loading_mib": loading, "peak_step_mib": peak.mib, "step_s": seconds}
        torch.save(found, f"{out}.pt")
        Path(out).write_text(json.dumps(measured))
    torch.distributed.destroy_process_group()


def measure(folder: str, size: int, shard: bool, out: Path) -> tuple[dict[str, Any], Tensor]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(worker, (size, port, folder, shard, str(out)), nprocs=size)
    return json.loads(out.read_text()), torch.load(f"{out}.pt", weights_only=True)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, out = f"{temporary}/base", Path(temporary) / "measured"
        parameters = save_base(Path(folder), arguments.layers, arguments.width)
        result = head("shard_memory", parameters=parameters, dtype="float32")
        result["whole"], expected = measure(folder, 1, False, out)
        for size in WORKERS:
            found, given = measure(folder, size, True, out)
            found["gradient_error"] = float((given - expected).norm() / expected.norm())
            result[f"partitioned_{size}"] = found
    finish(result, arguments.out)


if __name__ == "__main__":
    main()
