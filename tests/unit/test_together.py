"""Which layers read the same tensor, and that what they share is made once for every tensor."""

import pytest
import torch

from t2l.lora.together import ReadTogether, Segments, reading_together

TOKENS, SIZE, RANK = 5, 12, 3


def test_layers_of_one_parent_by_their_names_in_the_order_of_their_calls() -> None:
    names = (
        "self_attn.v_proj",
        "mlp.up_proj",
        "self_attn.q_proj",
        "mlp.gate_proj",
        "self_attn.o_proj",
        "mlp.down_proj",
    )
    keys = [f"layers.{layer}.{name}" for name in names for layer in range(2)]
    for layer in range(2):
        of_layer = [group for group in reading_together(keys) if f".{layer}." in group[0]]
        names_of = [[key.rpartition(".")[2] for key in group] for group in of_layer]
        assert names_of == [["q_proj", "v_proj"], ["gate_proj", "up_proj"], ["o_proj"], ["down_proj"]]


def test_every_layer_is_in_one_group() -> None:
    keys = ["a.q_proj", "b.q_proj", "a.c_attn", "q_proj"]
    assert sorted(key for group in reading_together(keys) for key in group) == sorted(keys)


def test_one_product_for_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="needs Triton, which torch's builds for GPUs bring along")
    from t2l.kernels import packed_lora

    products, inner = [], packed_lora.packed_down
    monkeypatch.setattr(packed_lora, "packed_down", lambda *args: products.append(args) or inner(*args))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    As = torch.randn(2, 1, RANK, SIZE, device=device)
    together = ReadTogether()
    adapter_T = torch.zeros(TOKENS, dtype=torch.int32, device=device)
    start_N1 = torch.tensor([0, TOKENS], dtype=torch.int32, device=device)
    together.install([(A, A.mT) for A in As], Segments(adapter_T, start_N1))
    first, second = torch.randn(2, 1, TOKENS, SIZE, device=device)
    # The last call reads another tensor than the layer before it, as after an error in between.
    calls = [(first, 0), (first, 1), (second, 0), (second, 1), (first, 0), (second, 1)]
    for x, layer in calls:
        expected = 0.5 * x[0] @ As[layer, 0].T
        torch.testing.assert_close(together.down(layer, x, 0.5, 0.0), expected, rtol=1e-4, atol=1e-4)
    assert len(products) == 4
