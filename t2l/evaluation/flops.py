"""Counted operations of what an answer costs: matrix products only, 2 floating point operations a multiply-add.

Left out: norms, activations, softmax, rotary embeddings, biases, embedding look-ups, sampling; together well under 1 %.
Attention counts every query with every key, as profilers do and as kernels without a causal mask compute it.

Legend: t tokens read now, p tokens before them in the KV cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from t2l.config import HypernetConfig, ReaderConfig
    from t2l.lora.spec import LoraSpec


_GATED_ENCODERS = ("new",)
"""gte's."""


@dataclass(frozen=True)
class Transformer:
    """The sizes of a stack of transformer layers that set its matrix products; `of` reads them off a model's config."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    gated: bool
    """Whether the MLP has a gate beside its two matrices."""
    vocab: int = 0
    """Outputs of the language model's head; 0 for an encoder."""

    @classmethod
    def of(cls, hf_config: "PretrainedConfig") -> "Transformer":
        """From the config of any dense decoder (Llama, Mistral, Qwen, ...) or of a BERT-like encoder."""
        config = hf_config.get_text_config()
        heads, hidden = config.num_attention_heads, config.hidden_size
        is_encoder = hasattr(config, "type_vocab_size")
        return cls(
            layers=config.num_hidden_layers,
            hidden=hidden,
            intermediate=config.intermediate_size,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or hidden // heads,
            gated=not is_encoder or config.model_type in _GATED_ENCODERS,
            vocab=0 if is_encoder else config.vocab_size,
        )

    def read(self, t: int, p: int = 0) -> int:
        """t tokens through all layers; each attends to the p cached ones and to all t."""
        projections = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)  # q and o; k and v
        mlp = (3 if self.gated else 2) * self.hidden * self.intermediate
        attention = 2 * self.heads * self.head_dim * (p + t)  # scores; weighted sum
        return 2 * self.layers * t * (projections + mlp + attention)

    def answer(self, prompt: int, answer: int) -> int:
        """Greedy decoding with a KV cache: the prompt gives the first of `answer` tokens, each next one is a step."""
        steps = sum(self.read(1, prompt + step) for step in range(answer - 1))
        return self.read(prompt) + steps + answer * 2 * self.hidden * self.vocab


def lora_flops(spec: "LoraSpec", tokens: int) -> int:
    """What per-row LoRA adds to the base model, for every token that it reads or writes: B (A x) in each target."""
    return 2 * tokens * spec.num_parameters


def sentence_encoder_flops(model: Transformer, tokens: int, pooler: bool = True) -> int:
    """A BERT-like encoder reads one description; `pooler`: with the dense layer on its first token."""
    return model.read(tokens) + 2 * model.hidden**2 * pooler


def probes_flops(base: Transformer, description: int, probes: Sequence[int]) -> int:
    """The base model reads a description and, in the same pass, probe inputs of these lengths; no head."""
    return base.read(description + sum(probes))


def reader_flops(config: "ReaderConfig", features: int, tokens: int) -> int:
    """The trained reader condenses the states [tokens, features] of one description."""
    width, queries = config.width, config.num_queries
    heads = config.num_heads
    layers = Transformer(config.num_layers, width, 4 * width, heads, heads, width // heads, gated=False)
    pooled = 2 * queries * width**2 + 2 * tokens * width**2 + 2 * queries * tokens * width  # q, o; k, v; attention
    return 2 * tokens * features * width + layers.read(tokens) + 2 * pooled


def hypernet_flops(config: "HypernetConfig", spec: "LoraSpec", embedding_dim: int) -> int:
    """One task embedding -> one adapter.

    The trunk runs once for each layer and module (L), for A and B apart (M), and for each rank (S); the heads' product
    is the same in all three: every weight of the adapter is one row of a head.
    """
    latent, hidden, out = config.latent_size, config.hidden_size, config.head_input_size
    block = 2 * latent * hidden
    places = spec.num_layers * len(spec.modules)
    sides = places * (1 if config.variant == "L" else 2)
    ranks = spec.rank if config.variant == "S" else 0
    ranked = sides * ranks if config.rank_positions == "rotary" else ranks
    trunk = (
        embedding_dim * config.task_features
        + places * 2 * block  # mixer, first block
        + (sides + ranked) * block  # second block: what has been mixed, then each rank of it, or the ranks' own table
        + sides * max(ranks, 1) * (latent * hidden + hidden * out)
    )
    return 2 * (trunk + out * spec.num_parameters)


@dataclass(frozen=True)
class Lengths:
    """Tokens of a description, of an input with the chat's turns around it, and of an answer; shots have both."""

    description: int
    input: int
    answer: int
    shots: int = 3

    @property
    def few_shot(self) -> int:
        """Prompt of the few-shot baseline."""
        return self.shots * (self.input + self.answer) + self.input

    @property
    def definition(self) -> int:
        """Prompt that begins with the task's definition."""
        return self.description + self.input


@dataclass(frozen=True)
class AnswerCost:
    """FLOPs of a first answer by T2L and by the two ways of saying the task in the prompt."""

    describe: int
    """Text encoder and reader."""
    generate: int
    """Hypernetwork."""
    adapted_answer: int
    """Base model with the adapter."""
    definition: int
    few_shot: int

    @property
    def t2l(self) -> int:
        return self.describe + self.generate + self.adapted_answer


def answer_cost(base: Transformer, spec: "LoraSpec", describe: int, generate: int, lengths: Lengths) -> AnswerCost:
    """All three for the same task. `describe`, `generate`: FLOPs of one description and of one adapter."""
    return AnswerCost(
        describe=describe,
        generate=generate,
        adapted_answer=base.answer(lengths.input, lengths.answer)
        + lora_flops(spec, lengths.input + lengths.answer - 1),
        definition=base.answer(lengths.definition, lengths.answer),
        few_shot=base.answer(lengths.few_shot, lengths.answer),
    )
