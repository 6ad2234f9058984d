"""HyperNetwork: sizes, the exact start, shapes, gradients, offset, z-score, storage, and a plain restatement.

Legend: n tasks, e task embedding, l layers, r rank, i in_features, o out_features, d latent, h head input.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from t2l.config import HypernetConfig
from t2l.errors import DataError, SpecMismatchError
from t2l.hypernet import HyperNetwork
from t2l.hypernet.heads import HEADS
from t2l.lora.spec import LoraSpec, TargetModule
from t2l.lora.weights import LoraWeights

EMBEDDING = 12
Q, V = TargetModule("q_proj", "self_attn.q_proj", 16, 16), TargetModule("v_proj", "self_attn.v_proj", 16, 6)
UP, DOWN = TargetModule("up_proj", "mlp.up_proj", 16, 20), TargetModule("down_proj", "mlp.down_proj", 20, 16)
SPEC = LoraSpec((Q, V, UP, DOWN), num_layers=3, layers_path="model.layers", rank=2, alpha=4.0)
variants = pytest.mark.parametrize("variant", ["S", "M", "L"])


def build(variant: str, spec: LoraSpec = SPEC, *, trained: bool = False, seed: int = 0) -> HyperNetwork:
    """A small hypernetwork in fp64 and eval mode; `trained` fills the silent heads with noise."""
    torch.manual_seed(seed)
    config = HypernetConfig.model_validate({"variant": variant, "latent_size": 8, "head_input_size": 10})
    hypernet = HyperNetwork(spec, config, EMBEDDING).double().eval()
    if trained:
        for parameter in hypernet.heads.parameters():
            nn.init.normal_(parameter, std=0.3)
    return hypernet


def embeddings(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, EMBEDDING, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def noise(n: int = 1, seed: int = 2, spec: LoraSpec = SPEC) -> LoraWeights:
    generator = torch.Generator().manual_seed(seed)
    zeros = LoraWeights.zeros(spec, n, dtype=torch.float64)
    return zeros.map(lambda t: torch.randn(t.shape, dtype=t.dtype, generator=generator))


def assert_same(left: LoraWeights, right: LoraWeights, tolerance: float = 0.0) -> None:
    for a, b in zip(left.tensors(), right.tensors(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


# ---- sizes and settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "count"), [("S", 4_996_096), ("M", 34_412_288), ("L", 55_424_000)])
def test_parameter_counts_are_the_papers(variant: str, count: int) -> None:
    modules = (
        TargetModule("q_proj", "self_attn.q_proj", 4096, 4096),
        TargetModule("v_proj", "self_attn.v_proj", 4096, 1024),
    )
    mistral = LoraSpec(modules, num_layers=32, layers_path="model.layers", rank=8, alpha=16.0)
    with torch.device("meta"):
        hypernet = HyperNetwork(mistral, HypernetConfig.model_validate({"variant": variant}), 1024)
    assert sum(p.numel() for p in hypernet.parameters() if p.requires_grad) == count
    assert all(p.is_meta for p in hypernet.parameters())


def test_config_is_frozen_and_strict() -> None:
    config = HypernetConfig()
    assert (config.variant, config.task_features, config.layer_features, config.module_features) == (
        "M",
        64,
        32,
        32,
    )
    with pytest.raises(ValidationError):
        config.latent_size = 64  # pyright: ignore[reportAttributeAccessIssue]
    for wrong in ({"variant": "XL"}, {"latent_size": 6}, {"dropout": 1.0}, {"widht": 1}):
        with pytest.raises(ValidationError):
            HypernetConfig.model_validate(wrong)


# ---- the start ---------------------------------------------------------------------------------------------


@variants
def test_starts_at_exactly_zero_yet_can_learn(variant: str) -> None:
    hypernet = build(variant).train()
    weights = hypernet(embeddings(3))
    for name in SPEC.module_names:
        assert torch.count_nonzero(weights.delta(name)) == 0
        A_NLRI = weights.A[name]
        bound = A_NLRI.shape[-1] ** -0.5
        assert 0.9 * bound < A_NLRI.abs().max() <= bound
        assert not torch.equal(A_NLRI[:, 0], A_NLRI[:, 1]), "every layer has its own A"
    sum((weights.delta(name).sum() for name in SPEC.module_names), torch.zeros(())).backward()
    for module in SPEC.modules:
        gradient = hypernet.heads[module.name].weight.grad
        assert isinstance(gradient, Tensor)
        assert gradient.abs().max() > 0
        if variant == "L":  # A and B have weights of their own: only B's can move first, for B = 0 hides A
            A_rows, B_rows = gradient.split([SPEC.rank * module.in_features, SPEC.rank * module.out_features])
            assert A_rows.abs().max() == 0
            assert B_rows.abs().max() > 0


@variants
def test_gradients_reach_every_parameter_after_one_step(variant: str) -> None:
    hypernet, target = build(variant), noise(2)
    optimizer = torch.optim.SGD(hypernet.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        weights = hypernet(embeddings(2))
        losses = [(weights.delta(name) - target.delta(name)).square().mean() for name in SPEC.module_names]
        torch.stack(losses).sum().backward()
        optimizer.step()
    silent = [k for k, p in hypernet.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


# ---- shapes, batching, order -------------------------------------------------------------------------------


@st.composite
def specs(draw: st.DrawFn) -> LoraSpec:
    names = draw(st.permutations(["q_proj", "v_proj", "gate_proj", "down_proj"]))[: draw(st.integers(1, 4))]
    size = st.integers(1, 9)
    modules = tuple(TargetModule(name, f"block.{name}", draw(size), draw(size)) for name in names)
    return LoraSpec(modules, draw(st.integers(1, 4)), "model.layers", draw(st.integers(1, 5)), alpha=8.0)


@settings(max_examples=25, deadline=None)
@given(spec=specs(), n=st.integers(1, 4), variant=st.sampled_from(["S", "M", "L"]), normalised=st.booleans())
def test_any_spec_gives_its_shapes_and_batches_alike(spec: LoraSpec, n: int, variant: str, normalised: bool) -> None:
    hypernet = build(variant, spec, trained=True)
    together = hypernet(embeddings(n), normalised=normalised)
    assert together.spec is spec
    assert len(together) == n
    alone = [hypernet(embeddings(n)[[k]], normalised=normalised) for k in range(n)]
    assert_same(together, LoraWeights.cat(alone), tolerance=1e-12)


@variants
def test_output_follows_dtype_and_embedding_is_checked(variant: str) -> None:
    hypernet = build(variant, trained=True).to(torch.bfloat16)
    assert {t.dtype for t in hypernet(embeddings(2).float()).tensors()} == {torch.bfloat16}
    for wrong in (torch.zeros(EMBEDDING), torch.zeros(2, EMBEDDING + 1), torch.zeros(1, 2, EMBEDDING)):
        with pytest.raises(SpecMismatchError, match=r"takes \[n, 12\]"):
            hypernet(wrong)


@variants
def test_dropout_acts_in_training_only(variant: str) -> None:
    hypernet = build(variant, trained=True)
    assert_same(hypernet(embeddings(2)), hypernet(embeddings(2)))
    hypernet.train()
    assert not torch.equal(hypernet(embeddings(2)).A["q_proj"], hypernet(embeddings(2)).A["q_proj"])


@variants
def test_order_of_modules_matters_and_is_stored(variant: str) -> None:
    hypernet = build(variant, trained=True)
    swapped = build(variant, replace(SPEC, modules=(V, Q, UP, DOWN)))
    with pytest.raises(SpecMismatchError, match=r"modules is .* in the checkpoint but .* in this hypernetwork"):
        swapped.load_state_dict(hypernet.state_dict())
    # What would happen unchecked (upstream's defect): the same tensors give another adapter.
    state = hypernet.state_dict()
    swapped.load_state_dict({**state, "_extra_state": swapped.get_extra_state()})
    assert not torch.allclose(hypernet(embeddings(1)).A["q_proj"], swapped(embeddings(1)).A["q_proj"])


# ---- offset and z-score ------------------------------------------------------------------------------------


@variants
def test_offset_is_the_start_and_is_added(variant: str) -> None:
    given_adapter = noise()
    torch.manual_seed(0)
    fresh = build(variant)
    hypernet = HyperNetwork(SPEC, fresh.config, EMBEDDING, offset=given_adapter).double().eval()
    assert_same(hypernet(embeddings(2)), LoraWeights.cat([given_adapter, given_adapter]), tolerance=1e-6)
    trained = build(variant, trained=True)
    residual = trained(embeddings(2), normalised=True)
    trained.set_offset(given_adapter)
    assert_same(trained(embeddings(2)), residual + given_adapter, tolerance=1e-12)
    with pytest.raises(SpecMismatchError, match="one adapter but got 2"):
        trained.set_offset(noise(2))
    with pytest.raises(SpecMismatchError, match="rank is 2 in the hypernetwork but 3 in the given weights"):
        trained.set_offset(noise(spec=replace(SPEC, rank=3)))


@variants
def test_zscore_scales_and_shifts(variant: str) -> None:
    hypernet = build(variant)
    mean, std = noise(seed=3), noise(seed=4).map(Tensor.abs)
    hypernet.set_zscore(mean, std)
    assert_same(hypernet(embeddings(1)), mean)  # nothing is left of the LoRA init
    for parameter in hypernet.heads.parameters():
        nn.init.normal_(parameter, std=0.3)
    raw, weights = hypernet(embeddings(2), normalised=True), hypernet(embeddings(2))
    for side, units in ((raw.A, (weights.A, mean.A, std.A)), (raw.B, (weights.B, mean.B, std.B))):
        for name, z in side.items():
            value, shift, scale = (unit[name] for unit in units)
            torch.testing.assert_close(value, z * scale + shift, rtol=0, atol=1e-12)
    assert_same(hypernet.normalise(weights), raw, tolerance=1e-9)


def test_zscore_refuses_bad_statistics_and_allows_constant_weights() -> None:
    hypernet, mean, std = build("M", trained=True), noise(seed=3), noise(seed=4).map(Tensor.abs)
    with pytest.raises(DataError, match="negative"):
        hypernet.set_zscore(mean, std * -1.0)
    with pytest.raises(DataError, match="not finite"):
        hypernet.set_zscore(mean * float("nan"), std)
    hypernet.set_zscore(mean, std * 0.0)
    assert_same(hypernet(embeddings(1)), mean)
    assert_same(hypernet.normalise(noise()), std * 0.0)


# ---- storage -----------------------------------------------------------------------------------------------


@variants
@pytest.mark.parametrize("zscore", [False, True])
def test_state_survives_safetensors(variant: str, zscore: bool, tmp_path: Path) -> None:
    hypernet = build(variant, trained=True)
    if zscore:
        hypernet.set_zscore(noise(seed=3), noise(seed=4).map(Tensor.abs))
    save_file(hypernet.state_dict(), tmp_path / "model.safetensors")
    loaded = build(variant, LoraSpec.from_dict(SPEC.to_dict()), seed=9)
    loaded.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert_same(loaded(embeddings(3)), hypernet(embeddings(3)))
    with torch.device("meta"):
        empty = HyperNetwork(SPEC, hypernet.config, EMBEDDING).eval()
    empty.load_state_dict(load_file(tmp_path / "model.safetensors"), assign=True)
    for key, tensor in hypernet.state_dict().items():
        assert torch.equal(empty.state_dict()[key], tensor)
    # Memory-mapped tensors are aligned differently, which moves the last bit of a matrix product.
    assert_same(empty(embeddings(3)), hypernet(embeddings(3)), tolerance=1e-12)


# ---- a plain restatement -----------------------------------------------------------------------------------


def restate(hypernet: HyperNetwork, embedding_E: Tensor, layer: int, index: int) -> tuple[Tensor, Tensor]:
    """A [r, i] and B [o, r] of one task, layer and module from the state dict, in plain loops."""
    state, variant = hypernet.state_dict(), hypernet.config.variant
    module, rank = hypernet.spec.modules[index], hypernet.spec.rank

    def linear(name: str, x: Tensor) -> Tensor:
        return state[f"{name}.weight"] @ x + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape, state[f"{name}.weight"], state[f"{name}.bias"])

    def mlp(name: str, x: Tensor) -> Tensor:
        return F.silu(linear(f"trunk.{name}.4", F.silu(linear(f"trunk.{name}.1", x))))

    def block(name: str, x: Tensor) -> Tensor:
        return x + mlp(f"{name}.mlp", norm(f"trunk.{name}.mlp.0", x))

    def table(name: str, *at: int) -> Tensor:
        return norm(f"trunk.{name}.norm", state[f"trunk.{name}.weight"][at])

    def head(x: Tensor) -> Tensor:
        return linear(f"heads.{module.name}", mlp("last", norm("trunk.last.0", x)))

    task = norm("trunk.task_encoder.1", linear("trunk.task_encoder.0", embedding_E))
    x = torch.cat([task, table("layer_table", layer), table("module_table", index)])
    x = block("block1", mlp("mixer", x))
    sizes, rows = (module.in_features, module.out_features), []
    for side, size in enumerate(sizes):
        for k in range(rank):
            if variant == "L":
                start = side * rank * sizes[0] + k * size
                row = head(block("block2", x))[start : start + size]
            else:
                y = block("block2", x + table("side_table", index, side))
                if variant == "M":
                    row = head(y)[k * max(sizes) : k * max(sizes) + size]
                else:
                    row = head(y + block("block2", table("rank_table", k)))[:size]
            units = f"units.{module.name}"
            shift, scale = (state[f"{units}.{'AB'[side]}_{kind}"][layer, k] for kind in ("shift", "scale"))
            rows.append(row * scale + shift)
    return torch.stack(rows[:rank]), torch.stack(rows[rank:]).T


@variants
def test_equals_a_restatement_in_plain_loops(variant: str) -> None:
    assert set(HEADS) == {"S", "M", "L"}
    hypernet, embedding = build(variant, trained=True), embeddings(2)
    hypernet.set_zscore(noise(seed=3), noise(seed=4).map(Tensor.abs))
    for norm in hypernet.modules():
        if isinstance(norm, nn.LayerNorm):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    weights = hypernet(embedding)
    for task in range(2):
        for layer in range(SPEC.num_layers):
            for index, name in enumerate(SPEC.module_names):
                A, B = restate(hypernet, embedding[task], layer, index)
                torch.testing.assert_close(weights.A[name][task, layer], A, rtol=0, atol=1e-10)
                torch.testing.assert_close(weights.B[name][task, layer], B, rtol=0, atol=1e-10)
