"""Pretraining of the embedded base model: skills that need a definition to be called up.

Axes: B sequences, T tokens.

As a real LLM has met its skills in pretraining, so this one: most samples carry a definition in the prompt, some show
a few examples instead, some show nothing at all and leave the model to guess. It reads every phrasing, also the
held-out ones (a language model knows the language); T2L is trained on the seen phrasings only. Novel combinations are
left out.
"""

import math
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from t2l.config import PretrainConfig
from t2l.files import complete_folder
from t2l.tasks.phrasing import Describer
from t2l.tasks.universe import Program, pretraining_programs
from t2l.text.prompts import PromptFormat

IGNORE = -100
_UNSEEN_SHARE = 0.25
_POOLED_BATCHES = 4
_HARD_WEIGHT = 3.0
_SECONDS_BETWEEN_LINES = 10.0
HARD = frozenset(
    "alphabetical reverse_alphabetical ascending descending shortest longest odd_positions even_positions animals "
    "clothes category last_letter count twice".split()
)
"""Operations that take the longest to learn: sorting above all. Their tasks come up more often."""


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh model, or the one in ``config.init`` to go on with."""
    if config.init:
        return LlamaForCausalLM.from_pretrained(config.init, dtype=torch.float32)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=math.ceil(len(tokenizer) / 64) * 64,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,  # type: ignore[arg-type]
            eos_token_id=tokenizer.eos_token_id,  # type: ignore[arg-type]
            pad_token_id=tokenizer.pad_token_id,  # type: ignore[arg-type]
        )
    )


class PretrainingStream(IterableDataset):
    """Endless batches (ids [B, T], labels [B, T]); each loader worker draws its own."""

    def __init__(self, config: PretrainConfig, tokenizer: PreTrainedTokenizerFast):
        self._config, self._tokenizer = config, tokenizer

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        info = get_worker_info()
        rng = random.Random(f"{self._config.seed}:{info.id if info else 0}")
        chat = PromptFormat.of(self._tokenizer)
        tasks = [
            (program, Describer(program.domain, program.pick, program.render)) for program in pretraining_programs()
        ]
        weights = [_HARD_WEIGHT if HARD.intersection((program.pick, program.render)) else 1.0 for program, _ in tasks]
        while True:
            size = self._config.batch_size
            chosen = rng.choices(tasks, weights, k=_POOLED_BATCHES * size)
            pool = [self._sample(rng, chat, *task) for task in chosen]
            pool.sort(key=lambda texts: len(texts[0]))  # like lengths together: a quarter of the padding
            starts = list(range(0, len(pool), size))
            rng.shuffle(starts)
            for start in starts:
                yield self._encode(pool[start : start + size])

    def _sample(
        self, rng: random.Random, chat: PromptFormat, program: Program, describer: Describer
    ) -> tuple[str, str]:
        example = program.draw(rng)
        style, definition, shots = rng.random(), None, []
        if style < self._config.definition_share:
            definition = describer.describe(rng, program.draw(rng), unseen=rng.random() < _UNSEEN_SHARE)
        if style > 1 - self._config.shots_share or rng.random() < 0.05:
            shots = [program.draw(rng) for _ in range(rng.randint(1, 3))]
        return chat.prompt(example.input, definition, shots), chat.answer(example.output)

    def _encode(self, texts: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
        prompts = self._tokenizer([prompt for prompt, _ in texts], add_special_tokens=False)["input_ids"]
        answers = self._tokenizer([answer for _, answer in texts], add_special_tokens=False)["input_ids"]
        rows = [p + a for p, a in zip(prompts, answers, strict=True)]
        width = math.ceil(max(map(len, rows)) / 16) * 16
        ids = torch.full((len(rows), width), self._tokenizer.pad_token_id)  # type: ignore[arg-type]
        labels = torch.full_like(ids, IGNORE)
        for i, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            ids[i, : len(row)] = torch.tensor(row)
            labels[i, len(row) - len(answer) : len(row)] = torch.tensor(answer)
        return ids, labels


def answer_loss(model: LlamaForCausalLM, ids_BT: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over answer tokens; logits only where labels are. Right padding needs no attention mask."""
    hidden = model.model(input_ids=ids_BT).last_hidden_state[:, :-1]
    targets = labels_BT[:, 1:]
    kept = targets != IGNORE
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[kept]).float(), targets[kept])


def learning_rate(config: PretrainConfig, progress: float) -> float:
    """Linear warm-up over 2 %, then cosine to 1 % of the peak."""
    if progress < 0.02:
        return config.lr * progress / 0.02
    return config.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def pretrain(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Train for ``config.minutes`` of wall time; the schedule follows the clock, so any machine finishes it."""
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(config, tokenizer).to(device)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.01, betas=(0.9, 0.98), fused=True)
    workers = min(config.loader_workers, os.cpu_count() or 1)
    stream = DataLoader(
        PretrainingStream(config, tokenizer),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        pin_memory=device.type == "cuda",
    )
    start = shown = time.monotonic()
    losses: list[torch.Tensor] = []
    for step, (ids, labels) in enumerate(stream):
        progress = (time.monotonic() - start) / (60 * config.minutes)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, progress)
        with torch.autocast(device.type, torch.bfloat16):
            loss = answer_loss(model, ids.to(device, non_blocking=True), labels.to(device, non_blocking=True))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if time.monotonic() - shown >= _SECONDS_BETWEEN_LINES:
            print(f"step {step + 1:,}  loss {torch.stack(losses).mean():.4f}  {progress:.0%}", flush=True)
            shown, losses = time.monotonic(), []
    return model.eval()


_CARD = """---
license: apache-2.0
library_name: transformers
---

# t2l embedded base model

A Llama of {parameters:,} parameters in bf16, pretrained from scratch on the skills of t2l's embedded universe. With a
definition in the prompt it does most of the universe's tasks; without one it can only guess: adapters are to help it.

Made by `python jobs/pretrain_base.py -o {folder} minutes={minutes:g} batch_size={batch_size} loader_workers={workers}`.
It knows no English but that of the universe's descriptions, and nothing of the world.
"""


def write_base(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, config: PretrainConfig, folder: Path
) -> None:
    """Model in bf16, tokenizer with chat template, config and card; complete or absent."""
    with complete_folder(folder) as fresh:
        model.to(torch.bfloat16).save_pretrained(fresh)  # type: ignore[arg-type]
        tokenizer.save_pretrained(fresh)
        (fresh / "pretrain.json").write_text(config.model_dump_json(indent=2) + "\n")
        card = _CARD.format(
            parameters=sum(p.numel() for p in model.parameters()),
            folder=folder,
            minutes=config.minutes,
            batch_size=config.batch_size,
            workers=config.loader_workers,
        )
        (fresh / "README.md").write_text(card)
