"""Recipes for real models, each on a tiny random model of the same architecture with a tokenizer that behaves alike."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from families import FAMILIES
from lora_models import logits, random_weights
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from serve.engine.rows import RowBatch
from serve.protocol import Sampling
from t2l.config import RunConfig, SftConfig, load_config
from t2l.data.descriptions import DescriptionNumbers
from t2l.data.steps import SftSteps
from t2l.data.suite import build_suite
from t2l.evaluation.decode import end_tokens, greedy_tokens
from t2l.hypernet.text_to_lora import build_model
from t2l.lora import LoraSpec
from t2l.lora.apply import PerRowLora
from t2l.lora.flat import FlatLayout
from t2l.lora.peft_io import load_peft, save_peft
from t2l.text.encoder import TextFeatures, build_encoder
from t2l.text.prompts import PromptFormat
from t2l.train.base import build_spec, load_base
from t2l.train.step import SftModule

RECIPES = sorted(FAMILIES)
CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"
TINY_DATA = (
    "{suite: sub_universe, picks: [first, last], renders: [plain, quotes], num_descriptions: 4, num_validation: 0}"
)
"""With `domain` and the rest by default: a few tasks of the embedded world."""

OURS = {  # adapter, hypernetwork (L): weights
    "mistral_7b_h100": (3_407_872, 55_424_000),
    "llama_8b_h100": (3_407_872, None),
    "gemma_2b_h100": (1_597_440, None),
    "qwen3_4b_h100": (2_949_120, None),
    "qwen3_0.6b_rtx4090": (1_146_880, None),
}
"""q_proj and v_proj at rank 8, from published sizes; Mistral's hypernetwork is the paper's."""


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda recipe: FAMILIES[recipe].save_tiny(tmp_path_factory.mktemp(recipe)))


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tiny(recipe: str, folder_of: Callable[[str], Path]) -> RunConfig:
    """The recipe, but on the tiny model, whose last token is the text encoder."""
    changes = ["base.dtype=float32", "encoder={kinds: [llm]}", "lora.dropout=0", f"data={TINY_DATA}"]
    changes.append("train.compile_base=false")  # it takes a CPU a minute
    return load_config(CONFIGS / f"{recipe}.yaml", [f"base.path={folder_of(recipe)}", *changes])


Loaded = tuple[PerRowLora, PreTrainedTokenizerBase, LoraSpec]


@pytest.fixture
def loaded(tiny: RunConfig) -> Loaded:
    model, tokenizer = load_base(tiny.base, "cpu")
    spec = build_spec(tiny.lora, model.config)
    return PerRowLora(model, spec), tokenizer, spec


# ---- the recipe itself


def test_the_paper_s_settings(recipe: str) -> None:
    run = load_config(CONFIGS / f"{recipe}.yaml")
    assert run.name == recipe
    assert run.base.dtype == "bfloat16"
    assert isinstance(run.train, SftConfig)
    train, lora = run.train, run.lora
    assert (train.lr, train.weight_decay, train.warmup_fraction, train.clip) == (2.5e-5, 1e-2, 0.2, 1.0)
    assert (train.label_smoothing, train.neftune_alpha, train.l2_generated) == (0.1, 5.0, 1e-3)
    assert (train.tasks_per_step, train.samples_per_task, run.data.num_descriptions) == (8, 1, 128)
    assert (lora.rank, lora.alpha, lora.use_rslora, lora.dropout) == (8, 16.0, True, 0.05)
    assert lora.target_modules == ("q_proj", "v_proj")


def test_the_spec_comes_from_the_config_alone(recipe: str) -> None:
    run, real = load_config(CONFIGS / f"{recipe}.yaml"), FAMILIES[recipe].real_config()
    spec = build_spec(run.lora, real)
    heads, kv = real.num_attention_heads * real.head_dim, real.num_key_value_heads * real.head_dim
    shapes = [(module.in_features, module.out_features) for module in spec.modules]
    assert shapes == [(real.hidden_size, heads), (real.hidden_size, kv)]
    assert spec.num_layers == real.num_hidden_layers
    assert spec.scaling == pytest.approx(5.657, abs=1e-3)
    adapter, hypernet = OURS[recipe]
    assert spec.num_parameters == adapter
    if hypernet is not None:
        with torch.device("meta"):
            model = build_model(run, spec, feature_dim=1024)
        assert sum(p.numel() for p in model.parameters()) == hypernet


# ---- prompts


USER, PAST, ANSWER, DEFINITION = "owl, pear?", "cat, dog", "dog", "Answer with the last word."


def test_prompts_are_what_the_template_makes(recipe: str, tiny: RunConfig) -> None:
    tokenizer = FAMILIES[recipe].tokenizer()
    chat = PromptFormat.of(tokenizer)
    [task] = build_suite(tiny.data).train[:1]
    shot = type(task.train[0])(PAST, ANSWER)

    def rendered(*turns: str) -> str:
        messages = [{"role": "assistant" if i % 2 else "user", "content": turn} for i, turn in enumerate(turns)]
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return str(text)

    assert chat.prompt(USER) == rendered(USER)
    assert chat.prompt(USER, DEFINITION) == rendered(f"{DEFINITION}\n\n{USER}")
    assert chat.prompt(USER, shots=[shot]) == rendered(PAST, ANSWER, USER)
    assert chat.prompt(USER, DEFINITION, [shot]) == rendered(f"{DEFINITION}\n\n{PAST}", ANSWER, USER)
    ids = _ids(tokenizer, chat.prompt(USER))
    bos = tokenizer.bos_token_id
    assert ids.count(bos) == (bos is not None)  # type: ignore[arg-type]
    whole = str(tokenizer.decode(ids + _ids(tokenizer, chat.answer(ANSWER))))
    assert whole.endswith(f"{ANSWER}{FAMILIES[recipe].ends[0]}")


def test_all_that_ends_an_answer(recipe: str, loaded: Loaded) -> None:
    base, tokenizer, _ = loaded
    ends = end_tokens(base.model, tokenizer)
    assert sorted(ends) == sorted(tokenizer.get_vocab()[token] for token in FAMILIES[recipe].ends)
    assert _ids(tokenizer, PromptFormat.of(tokenizer).answer_end) == ends[:1]


# ---- the model


def test_a_step_of_sft_through_the_base(tiny: RunConfig, loaded: Loaded) -> None:
    base, tokenizer, spec = loaded
    tasks = build_suite(tiny.data).train
    config = tiny.model_copy(update={"train": tiny.train.model_copy(update={"tasks_per_step": len(tasks)})})
    numbers = DescriptionNumbers.of(config.condition, tasks, config.data.num_descriptions)
    [batch] = SftSteps(config, tasks, numbers, tokenizer)[0]
    encoder = build_encoder(config.encoder, base.model, tokenizer)
    encoded = encoder.encode([numbers.texts[i] for i in batch.description_index_B.tolist()])
    features = TextFeatures(encoded.states_N_T_D.clone(), encoded.mask_N_T)  # made in inference mode
    torch.manual_seed(0)
    model = build_model(config, spec, encoder.feature_dim)
    assert isinstance(config.train, SftConfig)
    module = SftModule(base, model, config.train).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = module(batch, features).total
    before.backward()
    optimizer.step()
    with torch.no_grad():
        after = module(batch, features).total
    assert after < before
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_layers_computed_again_give_the_same_gradients(tiny: RunConfig, loaded: Loaded) -> None:
    base, tokenizer, spec = loaded
    config = tiny.model_copy(update={"condition": "static"})
    tasks = build_suite(tiny.data).train
    numbers = DescriptionNumbers.of(config.condition, tasks, 1)
    [batch] = SftSteps(config, tasks, numbers, tokenizer)[0]
    one_N_1_1 = torch.ones(len(batch.lengths_B), 1, 1)
    features = TextFeatures(one_N_1_1, one_N_1_1[..., 0] > 0)

    def gradients_and_kept(again: bool) -> tuple[list[Tensor | None], int]:
        torch.manual_seed(0)
        model, kept = build_model(config, spec, 1), []
        train = config.train.model_copy(update={"gradient_checkpointing": again})
        assert isinstance(train, SftConfig)
        module = SftModule(copy.deepcopy(base), model, train).train()

        def keep(x: Tensor) -> Tensor:
            kept.append(x.nbytes)
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = module(batch, features).total
        loss.backward()
        return [parameter.grad for parameter in model.parameters()], sum(kept)

    (plain, much), (computed_again, little) = gradients_and_kept(False), gradients_and_kept(True)
    torch.testing.assert_close(plain, computed_again)
    assert little < 0.95 * much, "the rest is kept of the hypernetwork and of logits"


def test_adapters_answer_in_peft_as_here(tiny: RunConfig, loaded: Loaded, tmp_path: Path) -> None:
    base, tokenizer, spec = loaded
    weights = random_weights(spec, 1, torch.float32)
    ids = torch.tensor([_prompt_ids(tokenizer, "owl, pear, hammer, cat, dog, shirt")])
    ours = logits(base, weights, input_ids=ids)
    assert not torch.allclose(ours, logits(base, None, input_ids=ids), atol=1e-2)
    folder = save_peft(weights, 0, tmp_path / "adapter", tiny.base.path)
    assert load_peft(folder, base.model.config).spec.modules == spec.modules
    model = AutoModelForCausalLM.from_pretrained(tiny.base.path, dtype=torch.float32, attn_implementation="eager")
    peft = PeftModel.from_pretrained(model, str(folder)).eval()
    torch.testing.assert_close(ours, logits(peft, input_ids=ids), atol=1e-4, rtol=1e-4)


def test_decoding_and_serving_say_the_same(loaded: Loaded) -> None:
    """Prompts longer than Gemma's window too: by whole passes, by `greedy_tokens`, by the engine's rows."""
    base, tokenizer, spec = loaded
    prompts = [_prompt_ids(tokenizer, text) for text in ("owl", "pear, hammer, cat, dog, shirt", "7, 12")]
    weights, number = random_weights(spec, len(prompts), torch.float32), 6
    expected = []
    for row, prompt in enumerate(prompts):
        mine, ids = weights.select(slice(row, row + 1)), list(prompt)
        for _ in range(number):
            ids.append(int(logits(base, mine, input_ids=torch.tensor([ids]))[0, -1].argmax()))
        expected.append(ids[len(prompt) :])
    found = greedy_tokens(base, tokenizer, prompts, weights, [number] * len(prompts))
    assert all(mine == theirs[: len(mine)] for mine, theirs in zip(found, expected, strict=True))
    with torch.inference_mode():
        rows = RowBatch(base, rows=4, max_length=256, prefill_tokens=256)
        for prompt, flat_P in zip(prompts, FlatLayout(spec).flatten(weights), strict=True):
            rows.join(prompt, flat_P, Sampling(number), number)
        rows.read(prompts)
        served = [rows.step() for _ in range(number)]
    assert [list(row) for row in zip(*served, strict=True)] == expected


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return _ids(tokenizer, PromptFormat.of(tokenizer).prompt(text))


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[return-value]
