"""The trunk's kernel against plain torch: on a GPU, or by Triton's interpreter where there is none."""

from typing import cast

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton, which torch's builds for GPUs bring along")

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from t2l import kernels
from t2l.hypernet.blocks import Mlp
from t2l.kernels import mlp, silu_linear

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = ((1 << 20, mlp.Blocks(16, 16, 16, warps=4, stages=2)),)
blocks = pytest.mark.parametrize("blocks", [mlp.BLOCKS, SMALL], ids=["its own", "small"])


@blocks
@settings(max_examples=8, deadline=None)
@given(
    rows=st.integers(1, 40),
    size=st.sampled_from([8, 24, 128, 500]),
    outputs=st.sampled_from([8, 24, 40]),
    normed=st.booleans(),
    residual=st.booleans(),
)
def test_equals_the_plain_path(
    blocks: tuple[tuple[float, mlp.Blocks], ...], rows: int, size: int, outputs: int, normed: bool, residual: bool
) -> None:
    torch.manual_seed(0)
    first = nn.LayerNorm(size) if normed else nn.Dropout(0.5)
    module = Mlp(first, size, 4 * size, size if residual else outputs, dropout=0.5).eval().to(DEVICE)
    for parameter in first.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(rows, 2, size + 3, device=DEVICE)[..., :size] + 3
    x = x if normed else torch.cat([x, x], 2)[..., size:]  # a part of wider rows
    expected = module(x, residual)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(kernels, "usable", lambda *_: True)
        patch.setattr(mlp, "FP32_PRECISION", "ieee")
        patch.setattr(mlp, "BLOCKS", blocks)
        patch.setattr(Mlp.__base__, "forward", None)  # the plain path
        torch.testing.assert_close(module(x, residual), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [8, 40])
@pytest.mark.parametrize(
    ("normed", "residual", "halved"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_many_rows_go_layer_by_layer_as_halves(
    monkeypatch: pytest.MonkeyPatch, size: int, normed: bool, residual: bool, halved: bool
) -> None:
    torch.manual_seed(0)
    module = Mlp(nn.LayerNorm(size) if normed else nn.Dropout(0.5), size, 56, size if residual else 24, dropout=0.5)
    module = module.eval().to(DEVICE)
    for weight in (parameter for parameter in module.parameters() if parameter.ndim == 2):
        weight.data *= torch.logspace(-6, 1, len(weight), device=DEVICE)[:, None]  # a factor a row
    x = torch.randn(37, size, device=DEVICE)
    x = x * torch.logspace(-3, 6, 37, device=DEVICE)[:, None] if normed and not residual else x
    expected = module(x, residual)
    monkeypatch.setattr(kernels, "usable", lambda *_: True)
    monkeypatch.setattr(mlp, "MANY", 36)
    monkeypatch.setattr(silu_linear, "BLOCKS", silu_linear.Blocks(16, 16, 16, warps=4, stages=2))
    monkeypatch.setattr(silu_linear, "NORMED_BLOCKS", silu_linear.Blocks(16, 16, 16, warps=4, stages=2))
    with torch.no_grad():
        found = module(x, residual, halved)
    assert found.dtype == (torch.float16 if halved else torch.float32)
    assert 0 < (found - expected).abs().max() < 1e-3 * expected.abs().max(), "rounded to 10 bits, and no worse"


def test_halves_without_a_factor_stay_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Mlp(nn.LayerNorm(16), 16, 32, 16, dropout=0.0).eval().to(DEVICE)
    cast(nn.Linear, module[4]).bias.data += 1e5
    monkeypatch.setattr(kernels, "usable", lambda *_: True)
    monkeypatch.setattr(mlp, "MANY", 0)
    with torch.no_grad():
        assert (module(torch.randn(20, 16, device=DEVICE), halved=True) == 65504).all()


def test_training_takes_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "usable", lambda *_: True)
    monkeypatch.setattr(mlp, "mlp_rows", None)
    module, x = Mlp(nn.LayerNorm(8), 8, 32, 8, dropout=0.5).to(DEVICE), torch.randn(3, 8, device=DEVICE)
    assert module.eval()(x).requires_grad
    with torch.no_grad():
        assert not torch.equal(module.train()(x), module(x)), "dropout"
