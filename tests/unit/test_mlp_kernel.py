"""The trunk's kernel against plain torch: on a GPU, or by Triton's interpreter where there is none."""

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton, which torch's builds for GPUs bring along")

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from t2l import kernels
from t2l.hypernet.blocks import Mlp
from t2l.kernels import mlp

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


def test_training_takes_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "usable", lambda *_: True)
    monkeypatch.setattr(mlp, "mlp_rows", None)
    module, x = Mlp(nn.LayerNorm(8), 8, 32, 8, dropout=0.5).to(DEVICE), torch.randn(3, 8, device=DEVICE)
    assert module.eval()(x).requires_grad
    with torch.no_grad():
        assert not torch.equal(module.train()(x), module(x)), "dropout"
