"""The factored distance of products against the products themselves."""

import torch

from t2l.lora import LoraSpec, LoraWeights, TargetModule
from t2l.lora.distance import inner_products, squared_distances, squared_norms

SPEC = LoraSpec(
    (TargetModule("q", "attn.q", 6, 4), TargetModule("v", "attn.v", 5, 7)), 3, "model.layers", rank=2, alpha=4.0
)


def draw(seed: int) -> LoraWeights:
    torch.manual_seed(seed)
    return LoraWeights.zeros(SPEC, 4).map(torch.randn_like)


def test_it_is_that_of_the_products() -> None:
    one, other = draw(0), draw(1)
    products = [(one.B[m] @ one.A[m] - other.B[m] @ other.A[m]).square().sum((1, 2, 3)) for m in ("q", "v")]
    torch.testing.assert_close(squared_distances(one, other), sum(products))
    norms = [(one.B[m] @ one.A[m]).square().sum((1, 2, 3)) for m in ("q", "v")]
    torch.testing.assert_close(squared_norms(one), sum(norms))


def test_what_does_the_same_is_at_no_distance() -> None:
    one = draw(0)
    turn = torch.linalg.qr(torch.randn(2, 2)).Q
    turned = LoraWeights(SPEC, {m: turn.mT @ A for m, A in one.A.items()}, {m: B @ turn for m, B in one.B.items()})
    assert (squared_distances(one, turned) / squared_norms(one)).max() < 1e-5


def test_inner_products_are_those_of_the_changes() -> None:
    weights = draw(2)
    deltas = torch.cat([weights.delta(name).flatten(1) for name in ("q", "v")], dim=1)
    torch.testing.assert_close(inner_products(weights), deltas @ deltas.T, rtol=1e-5, atol=1e-3)
