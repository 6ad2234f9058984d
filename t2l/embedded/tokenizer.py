"""The embedded base model's tokenizer: whole words where the universe knows them, bytes elsewhere; lossless.

Words, numbers and frequent separators are single tokens, with or without a leading space. Anything else falls back to
its bytes, so letter strings become letters and no text is impossible. There are no merges: a piece is known or spelled.
"""

import random
from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from t2l.tasks.phrasing import Describer
from t2l.tasks.universe import programs
from t2l.tasks.vocabulary import CITIES, COLORS, DAYS, JOBS, KEYS, NUMBER_WORDS, PEOPLE, WORDS

BOS, USER, ASSISTANT, END, PAD = "<|begin|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{{ '<|begin|>' }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ '<|assistant|>' + m['content'] + '<|end|>' }}"
    "{% else %}{{ '<|user|>' + m['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_PIECES = r"[,:;] | ?[A-Za-z]+(?:'[a-z]+)?| ?\d+|\n| ?[^\sA-Za-z\d]|\s"
_NUM_DESCRIPTIONS = 60


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _data_words() -> Iterable[str]:
    nouns = [*WORDS, *(word + "s" for word in WORDS), *(word + "es" for word in WORDS)]
    values = [*PEOPLE, *CITIES, *JOBS, *COLORS, *DAYS, *KEYS, *(part for n in NUMBER_WORDS for part in n.split())]
    for word in [*nouns, *values]:
        yield from (word, word.upper(), word.capitalize())
    yield from (str(n) for n in [*range(201), *range(210, 1000, 10)])


def _pieces(texts: Iterable[str]) -> Counter[str]:
    pre = _pre_tokenizer()
    return Counter(piece for text in texts for piece, _ in pre.pre_tokenize_str(text))


def _corpus() -> Iterable[str]:
    """Descriptions of every task, and inputs and answers of all but the letter strings, which are to be spelled."""
    rng = random.Random("tokenizer")
    for program in programs():
        describer = Describer(program.domain, program.pick, program.render)
        for i in range(_NUM_DESCRIPTIONS):
            example = program.draw(rng)
            text = describer.describe(rng, example, unseen=i % 4 == 0)
            yield text.replace(example.input, "").replace(example.output, "") if program.domain == "letters" else text
            if program.domain != "letters" and i < 8:
                yield from (example.input, example.output)


def build_tokenizer(min_count: int = 3) -> PreTrainedTokenizerFast:
    """Build the tokenizer from the universe's own words; deterministic."""
    spaced = {piece for word in _data_words() for piece in (word, " " + word)}
    known = _pieces(spaced) | Counter({piece: n for piece, n in _pieces(_corpus()).items() if n >= min_count})
    pieces = sorted(set(known) - set(pre_tokenizers.ByteLevel.alphabet()))
    vocabulary = [PAD, BOS, USER, ASSISTANT, END, *sorted(pre_tokenizers.ByteLevel.alphabet()), *pieces]
    tokenizer = Tokenizer(BPE(vocab={piece: i for i, piece in enumerate(vocabulary)}, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        model_max_length=512,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def load_tokenizer(folder: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(folder)
