"""Per-row LoRA against PEFT and merged weights: logits, gradients, generation, compiling, checkpointing."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_models import (
    alphas,
    families,
    logits,
    peft_model,
    random_weights,
    ranks,
    target_lists,
    tiny_config,
    tiny_model,
    tokens,
)
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from t2l import kernels
from t2l.errors import SpecMismatchError
from t2l.lora import LoraSpec, LoraWeights, TargetModule
from t2l.lora.apply import PerRowLora, RowLoraLinear

FAMILY = "qwen3"
SPEC = LoraSpec.from_config(tiny_config(FAMILY), ["v_proj", "down_proj", "q_proj"], rank=3)


def row_lora(spec: LoraSpec = SPEC, family: str = FAMILY, dtype: torch.dtype = torch.float64) -> PerRowLora:
    return PerRowLora(tiny_model(family, dtype), spec).eval()


def leaves(weights: LoraWeights) -> LoraWeights:
    return weights.map(lambda tensor: tensor.detach().clone().requires_grad_())


def gradients(weights: LoraWeights) -> list[Tensor]:
    grads = [tensor.grad for tensor in weights.tensors()]
    assert all(grad is not None and grad.any() for grad in grads)
    return [grad for grad in grads if grad is not None]


# ---- the same numbers as PEFT


@settings(max_examples=25, deadline=None)
@given(families, target_lists, ranks, alphas, st.booleans(), st.integers(1, 3), st.integers(1, 2))
def test_logits_equal_those_of_peft_mixed_batches(
    family: str, targets: list[str], rank: int, alpha: float, rslora: bool, n: int, k: int
) -> None:
    spec = LoraSpec.from_config(tiny_config(family), targets, rank, alpha, rslora)
    weights, input_ids = random_weights(spec, n), tokens(n * k)
    ours = row_lora(spec, family)
    theirs = peft_model(tiny_model(family), weights)
    names = [str(row // k) for row in range(n * k)]
    mixed = logits(theirs, input_ids=input_ids, adapter_names=names)
    torch.testing.assert_close(logits(ours, weights, input_ids=input_ids), mixed)
    theirs.set_adapter("0")
    alone = logits(theirs, input_ids=input_ids)  # PEFT's ordinary path: one adapter for all rows
    torch.testing.assert_close(logits(ours, weights.select([0]), input_ids=input_ids), alone)
    torch.testing.assert_close(logits(ours, None, input_ids=input_ids), logits(tiny_model(family), input_ids=input_ids))


@settings(max_examples=12, deadline=None)
@given(
    families,
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_low_precision_is_as_near_to_exact_as_peft(
    family: str, model_dtype: torch.dtype, adapter_dtype: torch.dtype
) -> None:
    spec = LoraSpec.from_config(tiny_config(family), ["q_proj", "up_proj"], rank=4)
    weights, input_ids = random_weights(spec, 3, adapter_dtype), tokens(3)
    model = tiny_model(family, model_dtype)
    exact_model = copy.deepcopy(model).double()
    exact = logits(PerRowLora(exact_model, spec), weights, input_ids=input_ids)
    theirs = peft_model(model, weights.to(dtype=model_dtype))
    their_logits = logits(theirs, input_ids=input_ids, adapter_names=["0", "1", "2"])
    our_logits = logits(PerRowLora(model, spec), weights, input_ids=input_ids)
    assert our_logits.dtype == model_dtype
    assert (our_logits - exact).norm() <= 1.3 * (their_logits - exact).norm() + 1e-6 * exact.norm()


def test_autocast_computes_in_its_dtype() -> None:
    lora, weights = row_lora(dtype=torch.float32), leaves(random_weights(SPEC, 2, torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        out = lora(weights, input_ids=tokens(2)).logits
    exact = logits(lora, weights, input_ids=tokens(2))
    assert (out - exact).norm() < 0.03 * exact.norm()
    out.float().square().sum().backward()
    assert all(gradient.dtype == torch.float32 for gradient in gradients(weights))


@settings(max_examples=10, deadline=None)
@given(families, target_lists, ranks)
def test_gradients_equal_those_of_peft(family: str, targets: list[str], rank: int) -> None:
    spec = LoraSpec.from_config(tiny_config(family), targets, rank)
    weights = leaves(random_weights(spec, 1))
    theirs = peft_model(tiny_model(family), weights)
    for model, args in ((row_lora(spec, family), (weights,)), (theirs, ())):
        model(*args, input_ids=tokens(2)).logits.square().mean().backward()
    parameters = dict(theirs.named_parameters())
    state = {key: parameters[key.replace(".weight", ".0.weight")].grad for key in weights.state_dict()}
    expected = LoraWeights.from_state_dict(spec, {key: grad for key, grad in state.items() if grad is not None})
    for ours, peft in zip(gradients(weights), expected.tensors(), strict=True):
        torch.testing.assert_close(ours, peft)


@settings(max_examples=10, deadline=None)
@given(families, target_lists, st.integers(1, 3), st.integers(1, 2))
def test_gradients_equal_those_of_merged_weights(family: str, targets: list[str], n: int, k: int) -> None:
    """Reference in plain autograd: row by row, with W + delta in place of W."""
    spec = LoraSpec.from_config(tiny_config(family), targets, rank=2)
    ours, merged = leaves(random_weights(spec, n)), leaves(random_weights(spec, n))
    input_ids, base = tokens(n * k), tiny_model(family)
    row_lora(spec, family)(ours, input_ids=input_ids).logits.square().mean().backward()
    rows = []
    for row in range(n * k):
        changed = {
            f"{spec.module_key(layer, module)}.weight": base.get_parameter(f"{spec.module_key(layer, module)}.weight")
            + merged.delta(module.name)[row // k, layer]
            for module in spec.modules
            for layer in range(spec.num_layers)
        }
        rows.append(functional_call(base, changed, kwargs={"input_ids": input_ids[row : row + 1]}).logits)
    torch.cat(rows).square().mean().backward()
    for left, right in zip(gradients(ours), gradients(merged), strict=True):
        torch.testing.assert_close(left, right)


# ---- generation


def generate(model: nn.Module, input_ids: Tensor, **kwargs: Any) -> Tensor:
    mask = (input_ids != 0).long()
    return model.generate(input_ids=input_ids, attention_mask=mask, max_new_tokens=6, do_sample=False, **kwargs)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma2"])
def test_generation_with_a_cache_equals_peft(family: str) -> None:
    spec = LoraSpec.from_config(tiny_config(family), ["v_proj", "q_proj", "gate_proj"], rank=4)
    weights, prompts = random_weights(spec, 3), tokens(3)
    prompts[1, :3] = 0  # padded on the left
    lora = row_lora(spec, family)
    with lora.adapters(weights):
        cached = generate(lora.model, prompts)
        recomputed = generate(lora.model, prompts, use_cache=False)
    theirs = generate(peft_model(tiny_model(family), weights), prompts, adapter_names=["0", "1", "2"])
    assert torch.equal(cached, theirs)
    assert torch.equal(cached, recomputed)
    assert not torch.equal(cached, generate(lora.model, prompts))  # the adapters matter, and are gone again


def test_beams_share_the_adapter_of_their_row() -> None:
    lora, weights, prompts = row_lora(), random_weights(SPEC, 2), tokens(2)
    with lora.adapters(weights):
        together = generate(lora.model, prompts, num_beams=3)
    for row in range(2):
        with lora.adapters(weights.select([row])):
            assert torch.equal(together[row : row + 1], generate(lora.model, prompts[row : row + 1], num_beams=3))


# ---- cost: nothing copied, one cast, few graphs


class Operators(TorchDispatchMode):
    """Names of all operators that run, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_a_layer_is_two_batched_matmuls_and_no_copy() -> None:
    lora, weights = row_lora(), random_weights(SPEC, 2)
    layer = lora.model.get_submodule("model.layers.1.self_attn.v_proj")
    assert isinstance(layer, RowLoraLinear)
    x = torch.randn(6, 5, 32, dtype=torch.float64)
    with lora.adapters(weights), torch.no_grad():
        assert layer.pair is not None
        assert layer.pair[0].data_ptr() == weights.A["v_proj"][0, 1].data_ptr()  # a view of the stacked tensor
        with Operators() as operators:
            layer(x)
    views = {"view", "_unsafe_view", "reshape", "transpose", "t", "mm", "detach"}
    assert [name for name in operators.names if name not in views] == ["bmm", "baddbmm_"]


def test_adapters_are_cast_once_per_forward() -> None:
    lora, weights = row_lora(dtype=torch.bfloat16), random_weights(SPEC, 2, torch.float32)
    with Operators() as operators, lora.adapters(weights):
        pass
    assert operators.names.count("_to_copy") == 2 * len(SPEC.modules)


def test_compiled_layer_is_one_graph_for_any_values() -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    lora = row_lora()
    layer = lora.model.get_submodule("model.layers.0.self_attn.q_proj")
    compiled = torch.compile(layer, backend=counter, fullgraph=True, dynamic=False)
    x = torch.randn(4, 5, 32, dtype=torch.float64)
    for seed in range(3):
        with lora.adapters(random_weights(SPEC, 2, seed=seed)):
            torch.testing.assert_close(compiled(x), layer(x))
    assert counter.frame_count == 1


def test_compiled_model_gives_the_same_logits_and_gradients() -> None:
    torch._dynamo.reset()
    lora, ours, eager = row_lora(), leaves(random_weights(SPEC, 2)), leaves(random_weights(SPEC, 2))
    expected = lora(eager, input_ids=tokens(4)).logits
    expected.square().mean().backward()
    lora.model.compile(backend="eager")
    result = lora(ours, input_ids=tokens(4)).logits
    result.square().mean().backward()
    torch.testing.assert_close(result, expected)
    for left, right in zip(gradients(ours), gradients(eager), strict=True):
        torch.testing.assert_close(left, right)


# ---- training


def test_dropout_acts_on_the_low_rank_path_in_training_alone() -> None:
    layer = RowLoraLinear(nn.Linear(32, 8).double(), scaling=2.0, dropout=0.5)
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    A, B = torch.randn(2, 3, 32, dtype=torch.float64), torch.randn(2, 8, 3, dtype=torch.float64)
    layer.pair = (A, B)
    torch.manual_seed(0)
    result = layer(x)
    torch.manual_seed(0)
    dropped = nn.functional.dropout(x, 0.5)
    torch.testing.assert_close(result, layer.base(x) + 2.0 * dropped @ A.mT @ B.mT)
    torch.testing.assert_close(layer.eval()(x), layer.base(x) + 2.0 * x @ A.mT @ B.mT)


def test_lora_layers_take_the_mode_of_those_they_replace() -> None:
    model = tiny_model("llama").eval()
    PerRowLora(model, SPEC)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("compiled", [False, True])
def test_checkpointing_recomputes_with_the_adapters_of_its_own_forward(compiled: bool) -> None:
    """Two forwards with different adapters precede the backwards: each recomputes with its own."""
    kept, recomputed = ([leaves(random_weights(SPEC, 2, seed=seed)) for seed in (1, 2)] for _ in range(2))
    plain, checkpointed = row_lora().train(), row_lora().train()
    checkpointed.enable_activation_checkpointing()
    if compiled:
        torch._dynamo.reset()
        for layer in checkpointed.model.get_submodule(SPEC.layers_path).children():
            layer.compile(backend="aot_eager")
    for lora, adapters in ((plain, kept), (checkpointed, recomputed)):
        losses = [lora(weights, input_ids=tokens(2), use_cache=False).logits.square().mean() for weights in adapters]
        for loss in losses:
            loss.backward()
    for left, right in zip(kept, recomputed, strict=True):
        for ours, other in zip(gradients(left), gradients(right), strict=True):
            torch.testing.assert_close(ours, other)


def test_the_base_model_is_frozen_and_registers_each_layer_once() -> None:
    lora = row_lora()
    assert not any(parameter.requires_grad for parameter in lora.parameters())
    count = sum(parameter.numel() for parameter in tiny_model(FAMILY).parameters())
    assert sum(parameter.numel() for parameter in lora.parameters()) == count
    assert len(lora.state_dict()) == len(tiny_model(FAMILY).state_dict())


# ---- state and errors


def test_for_kernels_adapters_lie_rank_by_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that come from PEFT folders, and without a copy where they do already."""
    monkeypatch.setattr(kernels, "usable", lambda *_: True)
    lora, weights = row_lora(), random_weights(SPEC, 2)
    turned = LoraWeights(SPEC, weights.A, {name: B.mT.contiguous().mT for name, B in weights.B.items()})
    with torch.no_grad():
        for given in (weights.map(Tensor.contiguous), turned):
            pairs = [pair for pair in lora.pairs(given) if pair is not None]
            assert all(B.stride()[1:] == (1, B.shape[1]) for _, B in pairs)
    names = iter(turned.B.values())
    assert pairs[0][1].data_ptr() == next(names).data_ptr()


def test_contexts_nest_and_end_after_errors() -> None:
    lora, input_ids = row_lora(), tokens(2)
    first, second = random_weights(SPEC, 2, seed=1), random_weights(SPEC, 2, seed=2)
    base = logits(lora, None, input_ids=input_ids)
    with lora.adapters(first):
        outer = logits(lora.model, input_ids=input_ids)
        with pytest.raises(RuntimeError, match="inside"), lora.adapters(second):
            raise RuntimeError("inside")
        assert torch.equal(logits(lora.model, input_ids=input_ids), outer)
        assert torch.equal(logits(lora, None, input_ids=input_ids), base)
    assert torch.equal(logits(lora.model, input_ids=input_ids), base)


def test_zero_adapters_are_the_base_model() -> None:
    lora = row_lora()
    mixed = LoraWeights.cat([LoraWeights.zeros(SPEC, 1, torch.float64), random_weights(SPEC, 1)])
    result, base = (logits(lora, weights, input_ids=tokens(2)) for weights in (mixed, None))
    assert torch.equal(result[0], base[0])
    assert not torch.allclose(result[1], base[1])


def test_rows_that_adapters_cannot_share_are_refused() -> None:
    with pytest.raises(SpecMismatchError, match="2 adapters cannot share 3 rows"):
        row_lora()(random_weights(SPEC, 2), input_ids=tokens(3))


def test_other_specs_are_refused() -> None:
    lora = row_lora()
    other = LoraSpec(SPEC.modules[::-1], 2, "model.layers", 3, 16.0)
    with pytest.raises(SpecMismatchError, match=r"modules is .* in the adapter but .* in the model's LoRA layers"):
        lora(random_weights(other, 1), input_ids=tokens(1))
    with pytest.raises(SpecMismatchError, match="RowLoraLinear"):
        PerRowLora(lora.model, SPEC)


@pytest.mark.parametrize(
    ("module", "layers", "message"),
    [
        (TargetModule("q_proj", "self_attn.q_proj", 32, 32), 2, r"32 -> 32.*32 -> 48"),
        (TargetModule("qkv", "self_attn.qkv", 32, 32), 2, "self_attn.qkv"),
        (SPEC.modules[0], 3, r"model\.layers\.2"),
    ],
)
def test_specs_that_do_not_fit_leave_the_model_alone(module: TargetModule, layers: int, message: str) -> None:
    model = tiny_model(FAMILY)
    with pytest.raises(SpecMismatchError, match=message):
        PerRowLora(model, LoraSpec((module,), layers, "model.layers", 2, 16.0))
    assert not any(isinstance(part, RowLoraLinear) for part in model.modules())
