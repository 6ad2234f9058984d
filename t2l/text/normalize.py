"""The paper's text rules: a full stop after a closing letter; vectors of length sqrt(dim)."""

import hashlib
from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import normalize

from t2l.errors import DescriptionError

MAX_CHARACTERS = 4000


def clean_description(text: str) -> str:
    """Strip, collapse white space, and end a sentence that stops on a letter with a full stop (upstream's rule).

    A clean text stays as it is. Raises DescriptionError for one that is empty or, without its full stop, longer than
    MAX_CHARACTERS.
    """
    words = " ".join(text.split())
    if not words:
        raise DescriptionError("the description is empty: say in words what the model shall do")
    if (length := len(words.removesuffix("."))) > MAX_CHARACTERS:
        raise DescriptionError(f"the description has {length} characters; the limit is {MAX_CHARACTERS}: shorten it")
    return words + "." if words[-1].isalpha() else words


def clean_descriptions(texts: Sequence[str]) -> list[str]:
    return [clean_description(text) for text in texts]


def scaled_unit(vectors_N_D: Tensor) -> Tensor:
    """L2-normalised and multiplied by sqrt(d), so that each entry has unit scale (paper, appendix)."""
    return normalize(vectors_N_D.float(), dim=-1) * vectors_N_D.shape[-1] ** 0.5


def text_digest(text: str) -> str:
    """A stable id of a cleaned description."""
    return hashlib.sha256(clean_description(text).encode()).hexdigest()[:16]
