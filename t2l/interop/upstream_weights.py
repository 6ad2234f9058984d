"""Upstream's state dict as the weights of our HyperNetwork: the same numbers under other names.

Ours starts with a LoRA init in the output's shift; upstream's lies in the bias of its heads. So the bias goes into the
head, and the shift is what upstream adds besides: a multi-task LoRA (SFT) or a library's mean (reconstruction).

Legend: m target modules, s sides (A, B), l layers, r rank, i in_features, o out_features, d latent.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from t2l.errors import CheckpointError
from t2l.hypernet.model import HyperNetwork
from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights

_NAMES = {
    "task_encoder.mlp.": "trunk.task_encoder.",
    "layer_depth_encoder.0.": "trunk.layer_table.",
    "layer_depth_encoder.1.": "trunk.layer_table.norm.",
    "layer_type_encoder.0.": "trunk.module_table.",
    "layer_type_encoder.1.": "trunk.module_table.norm.",
    "mixer.": "trunk.mixer.",
    "mlp1.": "trunk.block1.",
    "mlp2.": "trunk.block2.",
    "mlp3.": "trunk.last.",
    "pos_emb.0.": "trunk.rank_table.",
    "pos_emb.1.": "trunk.rank_table.norm.",
    "out_emb_norm.": "trunk.side_table.norm.",
    "heads.": "heads.",
}
_ADAPTERS = ("AB_offset.", "mean_recon_target.", "std_recon_target.")
_STD_FLOOR = 1e-10  # upstream adds it to every standard deviation


def load_weights(hypernet: HyperNetwork, state: Mapping[str, Tensor], *, offset: bool, zscore: bool) -> None:
    """Give `hypernet` upstream's weights; its spec has upstream's order of modules.

    offset: AB_offset is added to the output. zscore: the output is in units of the library's standard deviation.
    Raises CheckpointError if the state dict holds other tensors, or others' shapes, than such a hypernetwork has.
    """
    spec = hypernet.spec
    if zscore:
        std = _adapter(state, "std_recon_target", spec).map(lambda tensor: tensor + _STD_FLOOR)
        hypernet.set_zscore(_adapter(state, "mean_recon_target", spec), std)
    else:
        hypernet.set_offset(_adapter(state, "AB_offset", spec) if offset else LoraWeights.zeros(spec, 1))
    own = hypernet.state_dict()
    renamed = _renamed(state, spec)
    for name in spec.module_names:  # a head without a bias is one whose bias is 0
        renamed.setdefault(f"heads.{name}.bias", torch.zeros_like(own[f"heads.{name}.bias"]))
    _check(renamed, {name: tensor for name, tensor in own.items() if name.startswith(("trunk.", "heads."))})
    hypernet.load_state_dict({**own, **renamed})


def _renamed(state: Mapping[str, Tensor], spec: LoraSpec) -> dict[str, Tensor]:
    """Trunk and heads under our names."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith((*_ADAPTERS, "out_emb.")):
            continue
        prefix = next((prefix for prefix in _NAMES if name.startswith(prefix)), None)
        if prefix is None:
            raise CheckpointError(f"hypermod.pt holds {name!r}, which no variant S, M or L of upstream's has")
        renamed[_NAMES[prefix] + name.removeprefix(prefix)] = tensor
    if any(name.startswith("out_emb.") for name in state):
        sides = [[tensor_named(state, f"out_emb.{name}.{side}") for side in "AB"] for name in spec.module_names]
        renamed["trunk.side_table.weight"] = torch.stack([torch.stack(pair) for pair in sides])  # [m, s, d]
    return renamed


def _adapter(state: Mapping[str, Tensor], prefix: str, spec: LoraSpec) -> LoraWeights:
    """One adapter of upstream's, A [l, r, i] and B [l, o, r] per module."""
    A = {name: tensor_named(state, f"{prefix}.A.{name}")[None] for name in spec.module_names}
    return LoraWeights(spec, A, {name: tensor_named(state, f"{prefix}.B.{name}")[None] for name in spec.module_names})


def tensor_named(state: Mapping[str, Tensor], name: str) -> Tensor:
    """Raises CheckpointError if the state dict lacks it."""
    if name not in state:
        raise CheckpointError(f"hypermod.pt lacks {name!r}: take the file that upstream's training saved")
    return state[name]


def _check(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError that names the first tensor that is missing, surplus or of another shape."""
    for name in sorted(set(found) | set(wanted)):
        shapes = [list(side[name].shape) if name in side else "nothing" for side in (found, wanted)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"hypermod.pt does not fit its args.yaml and adapter_config.json: for {name!r} of ours it has "
                f"{shapes[0]}, but they ask for {shapes[1]}"
            )
