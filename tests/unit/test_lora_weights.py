import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_models import random_weights
from peft import LoraConfig, get_peft_model
from torch import nn

from t2l.errors import CheckpointError, SpecMismatchError
from t2l.lora import LoraSpec, LoraWeights, TargetModule

dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


@st.composite
def specs(draw: st.DrawFn) -> LoraSpec:
    names = draw(st.permutations(["q_proj", "down_proj", "x"]))[: draw(st.integers(1, 3))]
    sizes = st.integers(1, 6)
    modules = tuple(TargetModule(name, f"block.{name}", draw(sizes), draw(sizes)) for name in names)
    return LoraSpec(modules, draw(st.integers(1, 3)), "model.layers", draw(sizes), 16.0, draw(st.booleans()))


def equal(left: LoraWeights, right: LoraWeights) -> bool:
    pairs = zip(left.tensors(), right.tensors(), strict=True)
    return left.spec == right.spec and all(torch.equal(a, b) for a, b in pairs)


SPEC = LoraSpec((TargetModule("q", "a.q", 5, 3), TargetModule("v", "a.v", 5, 2)), 2, "model.layers", 4, 16.0)


@settings(max_examples=50, deadline=None)
@given(specs(), st.integers(1, 3), dtypes)
def test_state_dicts_round_trip(spec: LoraSpec, n: int, dtype: torch.dtype) -> None:
    weights = random_weights(spec, n, dtype)
    states = [weights.state_dict(index) for index in range(n)]
    assert equal(LoraWeights.from_state_dict(spec, states), weights)
    assert sum(tensor.numel() for tensor in states[0].values()) == spec.num_parameters
    backwards = dict(reversed(states[0].items()))
    assert equal(LoraWeights.from_state_dict(spec, backwards), weights.select(slice(0, 1)))


@settings(max_examples=50, deadline=None)
@given(specs(), st.integers(1, 3))
def test_arithmetic(spec: LoraSpec, n: int) -> None:
    a, b = random_weights(spec, n), random_weights(spec, n, seed=1)
    assert len(a) == n
    assert a.dtype == torch.float64
    for result, other, left, right in zip(*(w.tensors() for w in (a + b * 2.0, a - b, a, b)), strict=True):
        torch.testing.assert_close(result, left + 2 * right)
        torch.testing.assert_close(other, left - right)
    one = random_weights(spec, 1, seed=2)
    assert equal(a + one, LoraWeights.cat([a.select([i]) + one for i in range(n)]))  # one broadcasts
    for mean, tensor in zip(a.mean().tensors(), a.tensors(), strict=True):
        torch.testing.assert_close(mean, tensor.mean(0, keepdim=True))


@settings(max_examples=50, deadline=None)
@given(specs(), st.integers(1, 3))
def test_delta_is_the_scaled_product(spec: LoraSpec, n: int) -> None:
    weights = random_weights(spec, n)
    for module in spec.modules:
        delta = weights.delta(module.name)
        assert delta.shape == (n, spec.num_layers, module.out_features, module.in_features)
        B, A = weights.B[module.name][-1, -1], weights.A[module.name][-1, -1]
        torch.testing.assert_close(delta[-1, -1], spec.scaling * B @ A)


@given(specs(), st.lists(st.integers(0, 2), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_select_and_cat(spec: LoraSpec, index: list[int]) -> None:
    weights = random_weights(spec, 3)
    chosen = weights.select(torch.tensor(index))
    assert equal(chosen, LoraWeights.cat([weights.select(slice(i, i + 1)) for i in index]))
    assert equal(chosen, weights.select(index))


def test_slices_and_equal_dtypes_share_memory() -> None:
    weights = random_weights(SPEC, 3)
    for moved in (weights.to(dtype=torch.float64), weights.select(slice(0, 2)), weights.detach()):
        assert moved.A["q"].data_ptr() == weights.A["q"].data_ptr()
    assert weights.to(dtype=torch.bfloat16).dtype == torch.bfloat16


def test_init_is_that_of_peft() -> None:
    """A has the distribution of PEFT's own init; B and so every delta are exactly zero; seeds repeat."""
    spec = LoraSpec((TargetModule("q", "q", 400, 30),), 3, "model.layers", 8, 16.0)
    weights = LoraWeights.init(spec, 4, torch.Generator().manual_seed(1))
    layer = get_peft_model(nn.Sequential(nn.Linear(400, 30)), LoraConfig(r=8, target_modules=["0"]))
    theirs = layer.state_dict()["base_model.model.0.lora_A.default.weight"]
    assert weights.A["q"].abs().max() <= 1 / 20
    assert theirs.abs().max() <= 1 / 20
    torch.testing.assert_close(weights.A["q"].std(), theirs.std(), rtol=0.05, atol=0)
    assert not weights.delta("q").any()
    assert equal(weights, LoraWeights.init(spec, 4, torch.Generator().manual_seed(1)))


def test_gradients_flow_through_every_view() -> None:
    weights = random_weights(SPEC, 2).map(lambda tensor: tensor.requires_grad_())
    moved = (weights.select([0, 1]) + weights.to(dtype=torch.float32).to(dtype=torch.float64)).mean() * 3.0
    sum(tensor.sum() for tensor in moved.tensors()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    assert all(tensor.grad is not None and bool((tensor.grad == 3).all()) for tensor in weights.tensors())


def test_in_order_of_another_spec() -> None:
    weights = random_weights(SPEC, 2)
    turned = LoraSpec(SPEC.modules[::-1], 2, "model.layers", 4, 16.0)
    again = weights.in_order_of(turned)
    assert list(again.A) == ["v", "q"]
    assert equal(again.in_order_of(SPEC), weights)
    with pytest.raises(SpecMismatchError, match="alpha"):
        weights.in_order_of(LoraSpec(SPEC.modules[::-1], 2, "model.layers", 4, 8.0))
    with pytest.raises(SpecMismatchError, match="modules"):
        weights.in_order_of(LoraSpec(SPEC.modules[:1], 2, "model.layers", 4, 16.0))


def test_wrong_shapes_order_and_specs_are_named() -> None:
    weights = random_weights(SPEC, 2)
    with pytest.raises(SpecMismatchError, match="in this order"):
        LoraWeights(SPEC, dict(reversed(weights.A.items())), weights.B)
    with pytest.raises(SpecMismatchError, match="B of 'v'"):
        LoraWeights(SPEC, weights.A, {**weights.B, "v": weights.B["v"].mT})
    with pytest.raises(SpecMismatchError, match="B of 'q'"):
        LoraWeights(SPEC, weights.A, random_weights(SPEC, 3).B)
    other = random_weights(LoraSpec(SPEC.modules, 2, "model.layers", 3, 16.0), 2)
    with pytest.raises(SpecMismatchError, match="rank is 3 in the right side but 4 in the left side"):
        _ = weights + other
    with pytest.raises(SpecMismatchError, match="rank"):
        LoraWeights.cat([weights, other])
    with pytest.raises(SpecMismatchError, match="empty"):
        LoraWeights.cat([])
    with pytest.raises(SpecMismatchError, match="2 adapters with 3"):
        _ = weights + random_weights(SPEC, 3)
    with pytest.raises(SpecMismatchError, match="adapter 2"):
        weights.state_dict(2)


def test_missing_and_surplus_tensors_are_named() -> None:
    state = random_weights(SPEC, 1).state_dict()
    key = "base_model.model.model.layers.1.a.v.lora_B.weight"
    with pytest.raises(CheckpointError, match=key):
        LoraWeights.from_state_dict(SPEC, {k: v for k, v in state.items() if k != key})
    with pytest.raises(CheckpointError, match="odd"):
        LoraWeights.from_state_dict(SPEC, {**state, "odd": state[key]})
    with pytest.raises(SpecMismatchError, match=key):
        LoraWeights.from_state_dict(SPEC, {**state, key: state[key][:1]})
