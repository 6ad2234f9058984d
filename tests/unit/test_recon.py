"""Reconstruction: the loss against its definition, both distances learn, workers' shares add up."""

import pytest
import torch

from t2l.config import HypernetConfig, ReconConfig, RunConfig
from t2l.data.descriptions import DescriptionNumbers
from t2l.data.recon_steps import ReconSteps
from t2l.hypernet.text_to_lora import build_model
from t2l.lora import LoraSpec, LoraWeights, TargetModule
from t2l.text.encoder import TextFeatures
from t2l.train.engine import TorchEngine
from t2l.train.recon import ReconModule

SPEC = LoraSpec(
    (TargetModule("q", "attn.q", 6, 4), TargetModule("v", "attn.v", 6, 2)), 3, "model.layers", rank=2, alpha=4.0
)
TASKS = 5


def library() -> LoraWeights:
    torch.manual_seed(0)
    return LoraWeights.init(SPEC, 1).map(lambda tensor: tensor + 0.1 * torch.randn(TASKS, *tensor.shape[1:]))


def make(variant: str = "L", **train: object) -> tuple[ReconModule, RunConfig]:
    recon = ReconConfig.model_validate({"steps": 100, "tasks_per_step": TASKS, "lr": 1e-2, **train})
    hypernet = HypernetConfig(variant=variant, latent_size=16, head_input_size=32, dropout=0.0)  # type: ignore[arg-type]
    config = RunConfig(hypernet=hypernet, condition="one_hot", train=recon)
    torch.manual_seed(1)
    return ReconModule(library(), build_model(config, SPEC, TASKS), recon), config


def features(index: torch.Tensor) -> TextFeatures:
    return TextFeatures(torch.eye(TASKS)[index][:, None] * TASKS**0.5, torch.ones(len(index), 1, dtype=torch.bool))


def numbers() -> DescriptionNumbers:
    return DescriptionNumbers(tuple("abcde"), tuple(range(TASKS)), (1,) * TASKS)


def test_a_silent_hypernetwork_is_off_by_the_mean_z_score() -> None:
    module, config = make()
    [batch] = ReconSteps(config, numbers())[0]
    zscores = [(t - t.mean(0)) / t.std(0, correction=0) for t in library().tensors()]
    expected = torch.stack([z.abs().mean() for z in zscores]).mean()
    torch.testing.assert_close(module(batch, features(batch.description_index_B)).fit, expected, atol=1e-4, rtol=1e-4)


def test_the_delta_distance_is_a_share_of_the_librarys_size() -> None:
    module, config = make(distance="delta", zscore=False)
    [batch] = ReconSteps(config, numbers())[0]
    losses = module(batch, features(batch.description_index_B))
    torch.testing.assert_close(losses.fit, torch.tensor(1.0), atol=1e-4, rtol=1e-4)  # B = 0: the null adapter


@pytest.mark.parametrize("distance", ["l1", "delta"])
@pytest.mark.parametrize("variant", ["S", "M", "L"])
def test_it_learns(variant: str, distance: str) -> None:
    module, config = make(variant, distance=distance)
    engine = TorchEngine(module, config.train)
    steps = ReconSteps(config, numbers())
    fits = []
    for step in range(config.train.steps):
        [batch] = steps[step]
        losses = engine.forward(batch, features(batch.description_index_B))
        engine.backward(losses)
        engine.step(config.train.lr)
        fits.append(float(losses.fit))
    assert fits[-1] < fits[0] * (0.7 if variant == "S" else 0.35)


def test_shares_of_workers_and_micro_batches_add_up() -> None:
    module, config = make()
    [batch] = ReconSteps(config, numbers())[0]
    whole = module(batch, features(batch.description_index_B)).fit
    cut = config.model_copy(update={"train": config.train.model_copy(update={"micro_batches": 2})})
    parts = [batch for rank in (0, 1) for batch in ReconSteps(cut, numbers(), rank, 2)[0]]
    total = sum(module(part, features(part.description_index_B)).fit for part in parts)
    torch.testing.assert_close(total, whole)


def test_adapters_come_out_in_the_librarys_order() -> None:
    module, config = make("L")
    engine = TorchEngine(module, config.train)
    steps = ReconSteps(config, numbers())
    for step in range(config.train.steps):
        [batch] = steps[step]
        engine.backward(engine.forward(batch, features(batch.description_index_B)))
        engine.step(config.train.lr)
    found = features(torch.arange(TASKS))
    weights, targets = module.model(found.states_N_T_D, found.mask_N_T).detach(), library()
    for j in range(TASKS):
        apart = [float((weights.A["q"][j] - targets.A["q"][k]).abs().mean()) for k in range(TASKS)]
        assert min(range(TASKS), key=apart.__getitem__) == j
