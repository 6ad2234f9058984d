"""The kernel of the heads against plain torch: on a GPU, or by Triton's interpreter where there is none."""

import copy

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton, which torch's builds for GPUs bring along")

from lora_models import random_weights
from torch import nn

from t2l import kernels
from t2l.config import HypernetConfig
from t2l.hypernet import HyperNetwork
from t2l.kernels import heads, mlp
from t2l.kernels.halves import halves
from t2l.lora.spec import LoraSpec, TargetModule
from t2l.lora.weights import LoraWeights

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EMBEDDING = 12
MODULES = (TargetModule("q_proj", "self_attn.q_proj", 37, 37), TargetModule("v_proj", "self_attn.v_proj", 37, 11))
SPEC = LoraSpec(MODULES, num_layers=2, layers_path="model.layers", rank=3, alpha=4.0)
SMALL = heads.Blocks(16, 16, 16, warps=4, stages=2, band=2)
variants = pytest.mark.parametrize("variant", ["S", "M", "L"])


@pytest.fixture(autouse=True)
def _kernels_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "usable", lambda *_: True)
    monkeypatch.setattr(heads, "FP32_PRECISION", "ieee")
    monkeypatch.setattr(mlp, "FP32_PRECISION", "ieee")


def build(variant: str, head_input: int = 40) -> HyperNetwork:
    """With noise in the silent heads, and units that differ from weight to weight."""
    torch.manual_seed(0)
    config = HypernetConfig.model_validate({"variant": variant, "latent_size": 8, "head_input_size": head_input})
    hypernet = HyperNetwork(SPEC, config, EMBEDDING).eval()
    for parameter in hypernet.heads.parameters():
        nn.init.normal_(parameter, std=0.3)
    hypernet.set_zscore(random_weights(SPEC, 1, seed=1), random_weights(SPEC, 1, seed=2).map(torch.abs))
    return hypernet.to(DEVICE)


def plain(hypernet: HyperNetwork, embedding_N_E: torch.Tensor) -> LoraWeights:
    """With gradients on, for which there is no kernel."""
    with torch.enable_grad():
        return hypernet(embedding_N_E).map(torch.Tensor.detach)


def assert_close(left: LoraWeights, right: LoraWeights, tolerance: float) -> None:
    for a, b in zip(left.tensors(), right.tensors(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("n", "head_input", "small"), [(1, 40, False), (1, 40, True), (3, 32, False), (3, 40, True)])
@variants
def test_equals_the_plain_path(
    monkeypatch: pytest.MonkeyPatch, variant: str, n: int, head_input: int, small: bool
) -> None:
    if small:  # many blocks, of which some reach beyond the edges
        monkeypatch.setattr(heads, "BLOCKS", {torch.float32: ((1 << 20, SMALL),)})
    hypernet, embedding_N_E = build(variant, head_input), torch.randn(n, EMBEDDING, device=DEVICE)
    with torch.no_grad():
        assert_close(hypernet(embedding_N_E), plain(hypernet, embedding_N_E), 1e-5)
        hypernet.set_offset(random_weights(SPEC, 1, torch.float32, seed=3).to(DEVICE))
        assert_close(hypernet(embedding_N_E), plain(hypernet, embedding_N_E), 1e-5)


@pytest.mark.parametrize("n", [3, 64], ids=["some", "shared"])
@pytest.mark.parametrize("trunk_too", [False, True], ids=["", "trunk too"])
@variants
def test_many_rows_are_halved(monkeypatch: pytest.MonkeyPatch, variant: str, trunk_too: bool, n: int) -> None:
    monkeypatch.setattr(heads, "HALVED", 0)
    monkeypatch.setattr(mlp, "MANY", 0 if trunk_too else 1 << 20)
    monkeypatch.setattr(heads, "BLOCKS", {torch.float16: ((1 << 20, SMALL),)})
    monkeypatch.setattr(heads, "SHARED_BLOCKS", {torch.float16: SMALL._replace(rows=64)})
    hypernet, embedding_N_E = build(variant, head_input=16), torch.randn(n, EMBEDDING, device=DEVICE)
    with torch.no_grad():
        for parameter in hypernet.heads.parameters():
            parameter *= 1e6  # beyond what fp16 itself can hold
        assert (hypernet.trunk(embedding_N_E, halved=True).dtype == torch.float16) == trunk_too
        found, expected = hypernet(embedding_N_E), plain(hypernet, embedding_N_E)
    for a, b in zip(found.tensors(), expected.tensors(), strict=True):
        assert 0 < (a - b).abs().max() < 1e-3 * b.abs().max(), "rounded to 10 bits, and no worse"


def test_halves_keep_ten_bits_of_rows_of_any_size() -> None:
    torch.manual_seed(0)
    x_M_S = torch.randn(20, 600, device=DEVICE) * torch.logspace(-30, 30, 20, device=DEVICE)[:, None]
    x_M_S[3], x_M_S[4, 7] = 0, 0
    rows, factor = halves(x_M_S)
    error_M_S = (rows.float() * factor[:, None] - x_M_S).abs()
    assert (error_M_S <= torch.maximum(x_M_S.abs() * 2**-11, x_M_S.abs().amax(1, keepdim=True) * 2**-38)).all()


@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter knows no bf16")
@variants
def test_bf16_is_rounded_once(variant: str) -> None:
    hypernet = build(variant).bfloat16()
    exact = copy.deepcopy(hypernet).double()
    with torch.no_grad():
        hidden = hypernet.trunk(torch.randn(2, EMBEDDING, device=DEVICE, dtype=torch.bfloat16)).unbind(2)
        for name, x in zip(SPEC.module_names, hidden, strict=True):
            found = hypernet.heads[name](x, hypernet.units[name])
            expected = exact.heads[name](x.double(), exact.units[name])  # in fp64, which has no blocks
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a.double(), b, rtol=2**-8, atol=1e-5)


@variants
def test_it_is_taken_without_gradients_alone(monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    calls = []
    inner = heads.head_rows
    monkeypatch.setattr(heads, "head_rows", lambda *args: calls.append(len(args)) or inner(*args))
    hypernet, embedding_N_E = build(variant), torch.randn(2, EMBEDDING, device=DEVICE)
    assert next(hypernet(embedding_N_E).tensors()).requires_grad
    with torch.no_grad():
        raw = hypernet(embedding_N_E, normalised=True)  # not in units
        assert calls == []
        assert_close(hypernet.normalise(hypernet(embedding_N_E)), raw, 1e-2)  # divides by small scales
    assert len(calls) == 2 * len(MODULES)
