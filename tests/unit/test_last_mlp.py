"""The last MLP at label positions alone: the same logits and gradients there, and the model is left as it was."""

import pytest
import torch
from lora_models import FAMILIES, random_weights, tiny_model, tokens
from torch import nn

from t2l.lora import LoraSpec
from t2l.lora.apply import PerRowLora
from t2l.train.last_mlp import MlpAt, last_mlp_at

PLACES = torch.tensor([2, 5, 8, 17])


def logits_and_gradients(lora: PerRowLora, read_there: bool) -> list[torch.Tensor]:
    weights = random_weights(lora.spec, 3).map(lambda tensor: tensor.requires_grad_())
    if read_there:
        with last_mlp_at(lora, PLACES):
            whole = lora(weights, input_ids=tokens(3)).logits
    else:
        whole = lora(weights, input_ids=tokens(3)).logits
    logits = whole.flatten(0, 1)[PLACES]
    return [logits, *torch.autograd.grad(logits.square().sum(), list(weights.tensors()))]


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize(("targets", "checkpointing"), [("qv", False), ("down", False), ("qv", True)])
def test_what_is_read_stays_the_same(family: str, targets: str, checkpointing: bool) -> None:
    model = tiny_model(family)
    names = ["q_proj", "v_proj"] if targets == "qv" else ["down_proj"]
    lora = PerRowLora(model, LoraSpec.from_config(model.config, names, rank=3))
    if checkpointing:
        lora.enable_activation_checkpointing()
        lora.train()
    torch.testing.assert_close(logits_and_gradients(lora, True), logits_and_gradients(lora, False))


def test_it_computes_a_few_tokens_and_is_taken_out_again() -> None:
    model = tiny_model("llama")
    lora = PerRowLora(model, LoraSpec.from_config(model.config, ["q_proj"], rank=3))
    seen: list[int] = []
    last: nn.Module = lora.decoder_layers[-1].mlp  # type: ignore[assignment]
    last.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].flatten(0, -2).shape[0]))
    with last_mlp_at(lora, PLACES):
        lora(None, input_ids=tokens(3))
    lora(None, input_ids=tokens(3))
    assert seen == [len(PLACES), 18]
    assert not any(isinstance(module, MlpAt) for module in model.modules())
