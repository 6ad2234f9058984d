"""From task embeddings on the device to adapters on the device: ours beside upstream's way, and the floor.

    python benchmarks/generate.py --out benchmarks/results/generate_cpu.json
    python benchmarks/generate.py --device cuda --base mistral-7b --adapters 1 64 --rounds 30 \
        --out benchmarks/results/generate_h200.json

ours: HyperNetwork.forward for all embeddings at once, q and v of every layer, at the paper's sizes; on a GPU as a CUDA
    graph, as serve/hypernet.py runs it, and fp32 with products in TF32 or, of many rows, of halves.
upstream: what its description says that it does, restated by us: one embedding after another, one forward pass for each
    target module, then a state dict of one contiguous fp32 tensor a layer and side, on the CPU.

Both use the same random weights, and alternate. `floor_ms`: bytes that must move (trained weights and units read once,
adapters written once) over the bandwidth of a copy that is measured in the same run.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from harness import bandwidth, finish, head, in_turn, median_seconds, ratios
from shapes import EMBEDDING, RANK, TARGETS, base_config, shaped_parser
from torch import Tensor

from t2l.config import HypernetConfig
from t2l.graphs import CudaGraph
from t2l.hypernet.model import HyperNetwork
from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights

PEER_AT_MOST = 8
"""Adapters: upstream's way takes as much longer as there are more."""


def make(variant: str, spec: LoraSpec, device: str, dtype: torch.dtype) -> HyperNetwork:
    """With noise in every weight: fresh heads are silent."""
    torch.manual_seed(0)
    config = HypernetConfig.model_validate({"variant": variant})
    hypernet = HyperNetwork(spec, config, EMBEDDING).to(device, dtype).eval().requires_grad_(False)
    for parameter in hypernet.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.02)
    return hypernet


def upstream(hypernet: HyperNetwork, embedding_N_E: Tensor) -> list[dict[str, Tensor]]:
    """One adapter after another, each a state dict on the CPU."""
    return [one_upstream(hypernet, embedding_1_E) for embedding_1_E in embedding_N_E[:, None]]


def one_upstream(hypernet: HyperNetwork, embedding_1_E: Tensor) -> dict[str, Tensor]:
    found = {}
    for index, module in enumerate(hypernet.spec.modules):
        rows = hypernet.heads[module.name](hypernet.trunk(embedding_1_E)[:, :, index])
        A_1LRI, B_1LRO = hypernet.units[module.name](*rows)
        for layer in range(hypernet.spec.num_layers):
            key = hypernet.spec.module_key(layer, module)
            found[f"{key}.lora_A.weight"] = A_1LRI[0, layer].float().cpu().contiguous()
            found[f"{key}.lora_B.weight"] = B_1LRO[0, layer].T.float().cpu().contiguous()
    return found


def bytes_moved(hypernet: HyperNetwork, adapters: int) -> int:
    state = [tensor for tensor in hypernet.state_dict().values() if tensor.is_floating_point()]
    written = adapters * hypernet.spec.num_parameters * state[0].element_size()
    return sum(tensor.nbytes for tensor in state) + written


def compare(hypernet: HyperNetwork, adapters: int, rounds: int, alone: bool = False) -> dict[str, Any]:
    """alone: without the peer."""
    embedding_N_E = torch.randn(adapters, EMBEDDING).to(hypernet.trunk.layer_table.weight)
    graph = CudaGraph(lambda: hypernet(embedding_N_E)) if embedding_N_E.is_cuda else lambda: hypernet(embedding_N_E)
    peers: dict[str, Callable[[int], Any]] = {"ours": lambda _: graph()}
    if not alone:
        peers["upstream"] = lambda _: upstream(hypernet, embedding_N_E)
    measured = in_turn(peers, rounds, settle=True)
    ms = {name: median_seconds(measured, name) * 1e3 for name in peers}
    floor_ms = bytes_moved(hypernet, adapters) / bandwidth(embedding_N_E.device.type) * 1e3
    found = {"adapters": adapters, "ms": ms, "floor_ms": floor_ms, "over_floor": ms["ours"] / floor_ms}
    if alone:
        return found
    ours, theirs = (measured[0][name].value for name in ("ours", "upstream"))
    return found | {"ratios": ratios(measured), "largest_difference": difference(ours, theirs)}


def difference(ours: LoraWeights, theirs: list[dict[str, Tensor]]) -> float:
    """Of any weight of the first adapter, relative to the largest of its tensor."""
    own = ours.state_dict(0)
    pairs = ((own[f"base_model.model.{name}"].float().cpu(), tensor) for name, tensor in theirs[0].items())
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def parse() -> argparse.Namespace:
    parser = shaped_parser(__doc__)
    parser.add_argument("--variants", nargs="+", choices=("S", "M", "L"), default=["S", "M", "L"])
    parser.add_argument("--adapters", type=int, nargs="+", default=[1, 8], help="made at once (default 1, then 8)")
    parser.add_argument("--rounds", type=int, default=10, help="measured rounds (default 10)")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    arguments = parse()
    device = arguments.device
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as serve/hypernet.py does
    result = head("generate", device, base=arguments.base)
    spec = LoraSpec.from_config(base_config(arguments.base), TARGETS, rank=RANK)
    found = []
    for dtype in (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,):
        for variant in arguments.variants:
            hypernet = make(variant, spec, device, dtype)
            for adapters in arguments.adapters:
                row = {"variant": variant, "dtype": str(dtype).removeprefix("torch.")}
                row |= compare(hypernet, adapters, arguments.rounds, alone=adapters > PEER_AT_MOST)
                found.append(row)
                ms = ", ".join(f"{name} {taken:.2f}" for name, taken in row["ms"].items())
                print(
                    f"{variant} {row['dtype']:9} {adapters:4} adapters: {ms} ms, floor {row['floor_ms']:.2f}",
                    flush=True,
                )
    finish(
        result | {"bandwidth_gb_s": bandwidth(device) / 1e9, "parameters": spec.num_parameters, "runs": found},
        arguments.out,
    )


if __name__ == "__main__":
    main()
