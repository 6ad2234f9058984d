"""The job's step against a plain fp64 reference, under real DeepSpeed: ZeRO 0 to 3, one worker and two; last with
the base partitioned as well.

The reference shares no code with the step: it adds B A to the base's weights row by row, computes all logits, and takes
means token by token.
"""

import socket
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import save_tiny_base, tiny_llama
from torch import Tensor
from torch.func import functional_call
from torch.multiprocessing.spawn import spawn
from zero_worker import CASES, ROWS, STEPS, Setting, make_module, make_table, run, sft_config, torch_run

WORLD_SIZES = (1, 2)


@pytest.fixture(scope="module", params=WORLD_SIZES, ids=lambda size: f"{size}-workers")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of all ZeRO stages at one number of workers; one start of processes for all of them."""
    folder = tmp_path_factory.mktemp("zero")
    save_tiny_base(folder / "base")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size = request.param
    setting = Setting(size, micro_batches=2)
    spawn(run, (setting, folder, port), nprocs=size)
    return folder


@cache
def reference_gradients() -> dict[str, Tensor]:
    """Gradients of the loss of all rows by the trained weights, in fp64."""
    config = sft_config(Setting(), clip=1.0)
    model = make_module(config).model.double().train()
    base = tiny_llama().double().requires_grad_(False)
    spec = model.hypernet.spec
    table, table_rows = make_table(), torch.tensor([row.description for row in ROWS])
    features = table.lookup(table_rows)
    adapters = model(features.states_N_T_D.double(), features.mask_N_T)
    row_losses = []
    for i, row in enumerate(ROWS):
        changed = {}
        for module in spec.modules:
            for layer in range(spec.num_layers):
                name = f"model.layers.{layer}.{module.path}.weight"
                change = spec.scaling * adapters.B[module.name][i, layer] @ adapters.A[module.name][i, layer]
                changed[name] = base.get_parameter(name) + change
        logits = functional_call(base, changed, kwargs={"input_ids": torch.tensor([row.prompt + row.answer])}).logits[0]
        log_p = logits.log_softmax(-1)
        losses = []
        for j, label in enumerate(row.answer):
            place = len(row.prompt) + j - 1
            losses.append(-(0.9 * log_p[place, label] + 0.1 * log_p[place].mean()))
        row_losses.append(torch.stack(losses).mean())
    squares = [(adapters.A[m.name] ** 2).mean() + (adapters.B[m.name] ** 2).mean() for m in spec.modules]
    loss = torch.stack(row_losses).mean() + 0.05 * torch.stack(squares).sum()
    names, parameters = zip(*model.named_parameters(), strict=True)
    return {f"model.{name}": g for name, g in zip(names, torch.autograd.grad(loss, parameters), strict=True)}


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_the_reference(folder: Path, case: str) -> None:
    found, expected = load_file(folder / f"gradients-{case}.safetensors"), reference_gradients()
    assert found.keys() == expected.keys()
    assert all(gradient.abs().max() > 0 for gradient in expected.values()), "a zero gradient would test nothing"
    for name, gradient in expected.items():
        assert (found[name].double() - gradient).norm() <= 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["trained", "resumed"])
def test_updates_equal_plain_adamw(folder: Path, case: str, kind: str) -> None:
    """Clipped updates, also when the state of another engine is taken over half-way."""
    found, expected = load_file(folder / f"{kind}-{case}.safetensors"), torch_run(STEPS)
    assert found.keys() == expected.keys()
    assert found["updates"] == STEPS
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_a_worker_holds_its_part_of_every_layer(folder: Path) -> None:
    held = load_file(folder / "held-3-and-base.safetensors")
    workers, whole = int(held.pop("workers")), dict(tiny_llama().named_parameters())
    assert held.keys() == whole.keys()
    for name, parameter in whole.items():
        parts = workers if ".layers." in name else 1
        assert held[name].shape[0] * parts == parameter.shape[0], name
