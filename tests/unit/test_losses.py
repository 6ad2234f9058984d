"""The losses against their definitions, in fp64 and by hand."""

import torch

from t2l.data.collate import Row, collate
from t2l.lora import LoraSpec, LoraWeights, TargetModule
from t2l.train.losses import LossInputs, SoftLabels, answer_loss, kl_loss, through_base_losses

SPEC = LoraSpec(
    (TargetModule("q", "attn.q", 6, 4), TargetModule("v", "attn.v", 6, 2)), 3, "model.layers", rank=2, alpha=4.0
)


def make_inputs(rows_in_step: int) -> tuple[LossInputs, list[Row]]:
    torch.manual_seed(0)
    rows = [Row([1, 2], [3, 4, 5], 0), Row([1], [2], 0)]
    batch = collate(rows, rows_in_step, 0)
    weights = LoraWeights.zeros(SPEC, 2).map(lambda tensor: torch.randn_like(tensor))
    logits = torch.randn(4, 11)
    return LossInputs(logits, batch.label_ids_K, batch.label_weights_K, weights, rows_in_step), rows


def test_mean_over_tokens_then_over_sequences_with_smoothing() -> None:
    inputs, rows = make_inputs(2)
    log_p = inputs.logits_K_V.double().log_softmax(-1)
    per_row, place = [], 0
    for row in rows:
        losses = []
        for label in row.answer:
            losses.append(-(0.9 * log_p[place, label] + 0.1 * log_p[place].mean()))
            place += 1
        per_row.append(sum(losses) / len(losses))
    expected = sum(per_row) / len(per_row)
    losses = through_base_losses(inputs, 0.1, 0.0)
    torch.testing.assert_close(losses.total.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses.total, losses.fit)


def test_l2_is_the_mean_square_of_a_and_of_b_per_module() -> None:
    inputs, _ = make_inputs(2)
    weights = inputs.weights
    expected = sum((weights.A[m] ** 2).mean() + (weights.B[m] ** 2).mean() for m in ("q", "v"))
    losses = through_base_losses(inputs, 0.1, 0.5)
    torch.testing.assert_close(losses.l2, expected)
    torch.testing.assert_close(losses.total, losses.fit + 0.5 * expected)


def test_shares_of_workers_add_up() -> None:
    whole, _ = make_inputs(2)
    halves = []
    for i, labels in enumerate((slice(0, 3), slice(3, 4))):
        part = LossInputs(
            whole.logits_K_V[labels],
            whole.label_ids_K[labels],
            whole.label_weights_K[labels],
            whole.weights.select([i]),
            whole.adapters_in_step,
        )
        halves.append(through_base_losses(part, 0.1, 0.5).total)
    torch.testing.assert_close(sum(halves), through_base_losses(whole, 0.1, 0.5).total)


def test_only_the_total_carries_a_gradient() -> None:
    inputs, _ = make_inputs(2)
    inputs.logits_K_V.requires_grad_()
    losses = through_base_losses(inputs, 0.1, 0.5)
    assert losses.total.requires_grad
    assert not losses.fit.requires_grad
    assert not losses.l2.requires_grad


def test_kl_is_zero_at_the_teacher_and_cross_entropy_for_a_sure_one() -> None:
    inputs, _ = make_inputs(2)
    probs, ids = inputs.logits_K_V.softmax(-1).topk(11)
    assert kl_loss(inputs.logits_K_V, SoftLabels(ids, probs), inputs.label_weights_K).abs() < 1e-6
    sure = SoftLabels(inputs.label_ids_K[:, None].expand(-1, 3), torch.eye(3)[0].expand(4, -1))
    expected = answer_loss(inputs.logits_K_V, inputs.label_ids_K, inputs.label_weights_K)
    torch.testing.assert_close(kl_loss(inputs.logits_K_V, sure, inputs.label_weights_K), expected)


def test_kl_counts_what_goes_to_other_tokens() -> None:
    logits = torch.tensor([[0.0, 0.0, 5.0]], requires_grad=True)
    loss = kl_loss(logits, SoftLabels(torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.5]])), torch.ones(1))
    log_q = logits.detach().log_softmax(-1)[0, :2]
    torch.testing.assert_close(loss.detach(), (0.5 * (torch.tensor(0.5).log() - log_q)).sum())
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 2] > 0
