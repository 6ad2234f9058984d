"""Blends and merged models: sums of what adapters do, checked against the sums formed in full, PEFT and the base."""

import math
from pathlib import Path

import pytest
import torch
from lora_models import logits, random_weights, tiny_config, tiny_model, tokens
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner, Result

from t2l import TextToLora
from t2l.cli import app
from t2l.errors import ConfigError
from t2l.interop.blend import blend, compress
from t2l.interop.merge import merged
from t2l.lora import LoraSpec, LoraWeights
from t2l.lora.apply import PerRowLora
from t2l.lora.peft_io import load_peft, save_peft

SORT, COUNT, LAST = "Sort the words.", "Count the letters.", "Name the last word."
TARGETS = ["down_proj", "v_proj", "q_proj"]  # MLP, grouped-query and square shapes
factors = pytest.mark.parametrize("shares", [[0.7, 0.3], [1.0, -0.5], [0.2, 0.3, 0.5]])


def some(n: int, rslora: bool = True, rank: int = 3) -> LoraWeights:
    return random_weights(LoraSpec.from_config(tiny_config("llama"), TARGETS, rank, 16.0, rslora), n)


def deltas(weights: LoraWeights) -> torch.Tensor:
    """Every number of every delta W, [n, ...]."""
    return torch.cat([weights.delta(name).flatten(1) for name in weights.spec.module_names], dim=1)


def t2l(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@factors
@pytest.mark.parametrize("rslora", [True, False])
def test_a_blend_is_the_weighted_sum(shares: list[float], rslora: bool) -> None:
    weights = some(len(shares), rslora)
    blended = blend(weights, shares)
    assert (len(blended), blended.spec.rank, blended.spec.alpha) == (1, 3 * len(shares), 16.0)
    assert blended.spec.scaling != weights.spec.scaling, "the scaling changes with the rank"
    expected = torch.tensor(shares, dtype=torch.float64) @ deltas(weights)
    torch.testing.assert_close(deltas(blended)[0], expected, rtol=0, atol=1e-13)


def test_a_blend_in_peft_gives_equal_logits(tmp_path: Path) -> None:
    blended, input_ids = blend(some(2), [0.7, 0.3]), tokens(2)
    expected = logits(PerRowLora(tiny_model("llama"), blended.spec), blended, input_ids=input_ids)
    save_peft(blended, 0, tmp_path / "blend", "org/base")
    loaded = PeftModel.from_pretrained(tiny_model("llama"), str(tmp_path / "blend"), autocast_adapter_dtype=False)
    torch.testing.assert_close(logits(loaded.eval(), input_ids=input_ids), expected)


@pytest.mark.parametrize("rank", [1, 4, 6, 40])
def test_compression_is_the_best_of_its_rank_and_tells_its_error(rank: int) -> None:
    wide = blend(some(2, rank=20 if rank == 40 else 3), [0.7, 0.3])  # rank 40 is more than v_proj is wide
    small, error = compress(wide, rank)
    assert small.spec.rank == rank
    off = deltas(small) - deltas(wide)
    assert error == pytest.approx((off.norm() / deltas(wide).norm()).item(), abs=1e-12)
    for name in wide.spec.module_names:
        lost = torch.linalg.svdvals(wide.delta(name))[..., rank:].square().sum().item()
        change = (small.delta(name) - wide.delta(name)).square().sum().item()
        assert change == pytest.approx(lost, rel=1e-9, abs=1e-20)
    assert (error < 1e-12) == (rank in (6, 40))


def test_dtypes_are_kept_and_nothing_stays_nothing() -> None:
    zeros = LoraWeights.zeros(some(1).spec, 2, torch.bfloat16)
    small, error = compress(blend(zeros, [1.0, 1.0]), 2)
    assert (small.dtype, error) == (torch.bfloat16, 0.0)


@pytest.mark.parametrize("shares", [[1.0], [1.0, math.nan], [1.0, 1.0, 1.0]])
def test_factors_that_do_not_fit_are_refused(shares: list[float]) -> None:
    with pytest.raises(ConfigError, match="for 2 adapters: give one finite number for each"):
        blend(some(2), shares)


def test_the_commands_blend_and_merge(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    model = TextToLora.from_pretrained(tiny_checkpoint)
    single = deltas(model.generate([SORT, COUNT, LAST]).weights)
    rest = ("--checkpoint", tiny_checkpoint)
    for name, arguments, shares in (
        ("three", (SORT, COUNT, "--weights", ".7", "-0.3", ".1", LAST), [0.7, -0.3, 0.1]),
        ("equal", (SORT, COUNT, LAST), [1 / 3, 1 / 3, 1 / 3]),
    ):
        result = t2l("blend", *arguments, "-o", tmp_path / name, *rest)
        assert result.exit_code == 0, result.output
        assert "relative error 0 " in " ".join(result.stdout.split())
        assert str(tmp_path / name) in "".join(result.stdout.split())
        torch.testing.assert_close(
            deltas(load_peft(tmp_path / name))[0], torch.tensor(shares) @ single, rtol=0, atol=1e-4
        )
    result = t2l("blend", SORT, COUNT, "--rank", 4, "-o", tmp_path / "small", *rest)
    assert result.exit_code == 0, result.output
    assert load_peft(tmp_path / "small").spec.rank == 4
    card = (tmp_path / "small" / "README.md").read_text()
    assert f"> 0.5 × {SORT}\n> 0.5 × {COUNT}\n" in card
    assert "relative error of its change 0." in card
    result = t2l("blend", SORT, COUNT, "--rank", 40, "-o", tmp_path / "no", *rest)
    assert "rank 40 must lie between 1 and 16" in result.stderr
    result = t2l("blend", SORT, COUNT, "--weights", "1", "-o", tmp_path / "no", *rest)
    assert "give one finite number for each" in result.stderr

    result = t2l("generate", SORT, "--merge", "-o", tmp_path / "merged", *rest)
    assert result.exit_code == 0, result.output
    assert f"> {SORT}" in (tmp_path / "merged" / "README.md").read_text()
    whole, input_ids = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval(), tokens(2)
    expected = logits(model.base, model.generate([SORT]).weights, input_ids=input_ids)
    scale = expected.abs().max().item()
    torch.testing.assert_close(logits(whole, input_ids=input_ids), expected, rtol=0, atol=1e-4 * scale)
    assert not torch.allclose(expected, logits(model.base, None, input_ids=input_ids), atol=1e-2)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == model.tokenizer.chat_template


def test_a_model_is_itself_again_after_a_merge() -> None:
    model, weights = tiny_model("llama", torch.bfloat16), some(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with merged(model, weights):
        changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert len(changed) == 2 * len(TARGETS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
