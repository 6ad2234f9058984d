"""What a first answer costs on a checkpoint's own models: counted, and measured on this machine.

Axes: T tokens.
"""

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from t2l.config import EncoderConfig
from t2l.evaluation.flops import (
    AnswerCost,
    Lengths,
    Transformer,
    answer_cost,
    hypernet_flops,
    probes_flops,
    reader_flops,
    sentence_encoder_flops,
)
from t2l.report.document import Cell, Section, Table
from t2l.report.sections.costs import WAYS, cost_table, lines_figure
from t2l.text.positions import positions
from t2l.text.prompts import PromptFormat
from t2l.text_to_lora import TextToLora

ANSWER = 8
_INPUTS = (8, 16, 32, 64, 128, 256, 512, 1024)
_REPEATS = 5
_FIRST_TOKENS = 1000
"""Prompts are made of arbitrary tokens: only their number matters."""


def first_answers(t2l: TextToLora, description: str) -> Section:
    """FLOPs and seconds to an answer of ANSWER tokens for T2L, the definition in the prompt, and 3-shot."""
    tokens = len(_ids(t2l, description))
    lengths = _lengths(t2l, tokens)
    counted = {length.input: own_cost(t2l, description, length) for length in lengths}
    measured = {length.input: _measure(t2l, description, length) for length in lengths}
    where = f"{torch.cuda.get_device_name()}" if t2l.base.model.device.type == "cuda" else "CPU"
    caption = (
        f"Median of {_REPEATS} measurements ({where}, {torch.get_num_threads()} threads): description of {tokens} "
        f"tokens, answer of {ANSWER}"
    )
    values: dict[str, Sequence[float]] = {
        way: [1000 * row[way] for row in measured.values()] for way in measured[lengths[0].input]
    }
    rows: list[list[Cell]] = [[n, *(1000 * s for s in row.values())] for n, row in measured.items()]
    columns = ["input, tokens", *(f"{WAYS.get(way, way)}, ms" for way in values)]
    parts = [
        lines_figure("first_answer", caption, "time to the first answer, ms", values, list(measured)),
        Table("first_answer", caption, columns, rows),
        cost_table("flops_own", "Counted operations of the same", counted, 1e9, "GFLOP"),
    ]
    text = (
        f"The checkpoint '{t2l.config.name}' on its own base model. T2L pays once for reading a description and "
        "generating its adapter; further answers to the same task find the adapter there already."
    )
    return Section("Cost of a first answer: this checkpoint", text, parts)


def own_cost(t2l: TextToLora, description: str, lengths: Lengths) -> AnswerCost:
    """Counted for the checkpoint's encoder, reader, hypernetwork and base."""
    shape = Transformer.of(t2l.base.model.config)
    spec, hypernet = t2l.base.spec, t2l.model.hypernet
    generate = hypernet_flops(t2l.config.hypernet, spec, hypernet.embedding_dim)
    return answer_cost(shape, spec, _describe_cost(t2l, description, shape), generate, lengths)


def _describe_cost(t2l: TextToLora, description: str, base: Transformer) -> int:
    """Encoders and reader; one-hot codes and the like cost nothing."""
    config, flops, states = t2l.config.encoder, 0, 0
    if t2l.config.condition not in ("description", "input"):
        return 0
    counts = t2l.encoder.token_counts([description])[0]
    for kind, tokens in zip(config.kinds, counts, strict=True):
        if kind == "sentence":
            flops += sentence_encoder_flops(_sentence_model(config), tokens)
            states += tokens
        else:
            probes = _probe_lengths(t2l) if config.reader else []
            flops += probes_flops(base, tokens, probes)
            states += sum(probes)
    reader = 0 if config.reader is None else reader_flops(config.reader, t2l.encoder.feature_dim, states)
    return flops + reader


def _sentence_model(encoder: EncoderConfig) -> Transformer:
    from transformers import AutoConfig

    from t2l.text.sentence import pins_of_code, source_of

    pins = {"revision": encoder.revision, **pins_of_code(encoder)}
    trusted = encoder.trust_remote_code
    return Transformer.of(AutoConfig.from_pretrained(source_of(encoder), trust_remote_code=trusted, **pins))


def _probe_lengths(t2l: TextToLora) -> list[int]:
    end = PromptFormat.of(t2l.tokenizer).user_to_assistant
    return [len(_ids(t2l, f"\n\n{probe}{end}")) for probe in t2l.config.encoder.probes]


def _ids(t2l: TextToLora, text: str) -> list[int]:
    return t2l.tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[return-value]


def _lengths(t2l: TextToLora, description: int) -> list[Lengths]:
    """Inputs whose longest prompt still leaves room for an answer."""
    limit = positions(t2l.base.model.config) or 1 << 20
    found = [Lengths(description, tokens, ANSWER) for tokens in _INPUTS]
    return [one for one in found if max(one.few_shot, one.definition) + ANSWER <= limit]


def _measure(t2l: TextToLora, description: str, lengths: Lengths) -> dict[str, float]:
    """Seconds of each way, measured in turns so that a busy moment of the machine spoils none of them alone."""
    base = t2l.base
    weights = t2l.generate([description]).weights

    def with_adapter() -> None:
        with base.adapters(t2l.generate([description]).weights):
            _answer(t2l, lengths.input)

    def known_adapter() -> None:
        with base.adapters(weights):
            _answer(t2l, lengths.input)

    ways: dict[str, Callable[[], None]] = {
        "t2l": with_adapter,
        "definition": lambda: _answer(t2l, lengths.definition),
        "few_shot": lambda: _answer(t2l, lengths.few_shot),
        "T2L, adapter there already": known_adapter,
    }
    for run in ways.values():
        run()
    rounds = [{way: _seconds(run) for way, run in ways.items()} for _ in range(_REPEATS)]
    return {way: median(one[way] for one in rounds) for way in ways}


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@torch.inference_mode()
def _answer(t2l: TextToLora, tokens: int) -> None:
    """Greedy answer of exactly ANSWER tokens to a prompt of `tokens`; waits for the device."""
    model = t2l.base.model
    size = model.config.get_text_config().vocab_size
    ids_T = torch.arange(tokens) % min(size, _FIRST_TOKENS)
    output = model.generate(  # type: ignore[operator]
        input_ids=ids_T[None].to(model.device),
        attention_mask=torch.ones(1, tokens, dtype=torch.long, device=model.device),
        max_new_tokens=ANSWER,
        min_new_tokens=ANSWER,
        do_sample=False,
        pad_token_id=0,
    )
    output.cpu()
