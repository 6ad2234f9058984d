"""What a first answer costs in counted operations, for the paper's Mistral-7B and for a checkpoint's own models."""

from collections.abc import Callable, Sequence
from functools import cache

from t2l.config import HypernetConfig
from t2l.evaluation.flops import AnswerCost, Lengths, Transformer, answer_cost, hypernet_flops
from t2l.lora.spec import LoraSpec
from t2l.report.document import Cell, Figure, Section, Table
from t2l.report.style import COLOURS, MARKERS, panels

GTE_LARGE = Transformer(24, 1024, 4096, 16, 16, 64, gated=True)
"""gte-large-en-v1.5, the paper's text encoder; a sentence is 1,024 numbers."""
PAPER_T2L, PAPER_FEW_SHOT = 0.856e12, 4.177e12
"""FLOPs of a first answer that the paper gives for Mistral-7B."""
_DESCRIPTION = 50
_INPUTS = (25, 50, 100, 200, 400, 800)
_ANSWER = 1
WAYS = {"t2l": "T2L: read, generate, answer", "definition": "definition in the prompt", "few_shot": "3-shot"}


def paper_cost(lengths: Lengths, variant: str = "M") -> AnswerCost:
    """Mistral-7B with rank-8 adapters on q and v, the paper's hypernetwork and gte-large; built from configs alone."""
    mistral, spec = _mistral()
    generate = hypernet_flops(HypernetConfig.model_validate({"variant": variant}), spec, GTE_LARGE.hidden)
    return answer_cost(mistral, spec, GTE_LARGE.read(lengths.description), generate, lengths)


@cache
def _mistral() -> tuple[Transformer, LoraSpec]:
    from transformers import MistralConfig

    config = MistralConfig()
    return Transformer.of(config), LoraSpec.from_config(config, ["q_proj", "v_proj"])


def paper_costs() -> Section:
    """Counts for the paper's models at several lengths, and the lengths that its own numbers stand for."""
    costs = {n: paper_cost(Lengths(_DESCRIPTION, n, _ANSWER)) for n in _INPUTS}
    caption = (
        f"Mistral-7B, T2L M, gte-large: FLOPs to the first token of the answer, description of {_DESCRIPTION} tokens"
    )
    parts = [cost_figure("flops_mistral", caption, costs), cost_table("flops_mistral", caption, costs, 1e12, "TFLOP")]
    question = _length_of(lambda n: paper_cost(Lengths(_DESCRIPTION, n, _ANSWER)).t2l, PAPER_T2L)
    prompt = _length_of(lambda n: paper_cost(Lengths(0, n, _ANSWER, shots=0)).few_shot, PAPER_FEW_SHOT)
    t2l = paper_cost(Lengths(_DESCRIPTION, question, _ANSWER)).t2l
    few_shot = paper_cost(Lengths(0, prompt, _ANSWER, shots=0)).few_shot
    text = (
        f"Matrix products only, 2 operations a multiply-add; norms, softmax, activations and rotary embeddings are "
        f"left out. The paper gives {PAPER_T2L / 1e12:.3f} TFLOP for T2L and {PAPER_FEW_SHOT / 1e12:.3f} for 3-shot. "
        f"Our count comes to these at an input of {question} tokens after a description of {_DESCRIPTION} "
        f"({t2l / 1e12:.3f}) and at a 3-shot prompt of {prompt} tokens ({few_shot / 1e12:.3f}), which is three shots "
        f"of {(prompt - question) / 3:.0f} tokens each before such an input. These lengths are ours: chosen to meet "
        "the numbers, not taken from the paper."
    )
    return Section("Cost of a first answer: the paper's models", text, parts)


def _length_of(cost: Callable[[int], int], target: float) -> int:
    """The length whose cost, which grows with it, is nearest to the target."""
    low, high = 1, 4096
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= target else (low, middle)
    return min((low, high), key=lambda n: abs(cost(n) - target))


def cost_figure(name: str, caption: str, costs: dict[int, AnswerCost]) -> Figure:
    """FLOPs of the three ways against the input's length."""
    values: dict[str, Sequence[float]] = {way: [getattr(cost, way) for cost in costs.values()] for way in WAYS}
    return lines_figure(name, caption, "FLOPs to the first answer", values, list(costs), decades=True)


def cost_table(name: str, caption: str, costs: dict[int, AnswerCost], unit: float, unit_name: str) -> Table:
    """The parts of each, in units of `unit` FLOPs."""
    rows: list[list[Cell]] = []
    for tokens, cost in costs.items():
        parts = (cost.describe, cost.generate, cost.adapted_answer, cost.t2l, cost.definition, cost.few_shot)
        rows.append([tokens, *(part / unit for part in parts), cost.few_shot / cost.t2l])
    names = ("read the description", "generate", "adapted answer", "T2L in all", "definition in the prompt", "3-shot")
    columns = ["input, tokens", *(f"{part}, {unit_name}" for part in names), "3-shot / T2L"]
    return Table(name, caption, columns, rows)


def lines_figure(
    name: str, caption: str, label: str, values: dict[str, Sequence[float]], inputs: Sequence[int],
    decades: bool = False,
) -> Figure:  # fmt: skip
    """One line a way of asking, by the input's length (logarithmic); the y axis begins at 0, or shows decades."""
    figure, [axes] = panels(1, width=6, height=3.6)
    for number, (way, ys) in enumerate(values.items()):
        style = {"marker": MARKERS[number], "color": COLOURS[number], "markersize": 5, "linewidth": 1.3}
        axes.plot(inputs, ys, label=WAYS.get(way, way), **style)
    axes.set_xscale("log")
    axes.set_xticks(list(inputs), [str(n) for n in inputs])
    axes.minorticks_off()
    axes.set_xlabel("input, tokens")
    axes.set_ylabel(label)
    if decades:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.legend()
    return Figure(name, caption, figure)
