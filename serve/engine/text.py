"""From tokens to text, piece by piece: nothing is let out that a later token could still change or cut off."""

from collections.abc import Sequence

from tokenizers import Tokenizer

_INCOMPLETE = "\ufffd"
"""What the decoder shows for bytes that are no whole character (yet)."""


class AnswerText:
    """The text of one answer up to the first stop string; `stopped` says that one has come."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = StopStrings(stop)

    @property
    def stopped(self) -> bool:
        return self._stop.found

    def push(self, token: int) -> str:
        """The text that is certain after one more token: maybe none, maybe some that was held back before."""
        return self._stop.push(self._detokenizer.push(token))

    def end(self) -> str:
        """What is still held back, once no more tokens come."""
        return self._stop.push(self._detokenizer.end()) + self._stop.end()


class Detokenizer:
    """Decodes a sequence of tokens incrementally, without special tokens.

    Tokens are decoded together with those before them, as many decoders treat the first token in its own way. Unlike
    tokenizers' DecodeStream, it survives byte tokens that form no text, and gives out an incomplete end.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._context: list[int] = []
        self._context_length = 0
        self._fresh: list[int] = []

    def push(self, token: int) -> str:
        """The new text, empty while it may end within a character."""
        self._fresh.append(token)
        text = self._tokenizer.decode(self._context + self._fresh)
        if len(text) <= self._context_length or text.endswith(_INCOMPLETE):
            return ""
        piece = text[self._context_length :]
        self._context, self._fresh = self._fresh, []
        self._context_length = len(self._tokenizer.decode(self._context))
        return piece

    def end(self) -> str:
        """The incomplete end, if any, as the decoder shows it."""
        return self._tokenizer.decode(self._context + self._fresh)[self._context_length :]


class StopStrings:
    """Passes text through up to the stop string that is complete first, however the text comes in pieces."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """The text that no stop string can reach any more; nothing once one was found."""
        if not self._stop or self.found:
            return "" if self.found else piece
        text = self._held + piece
        ends = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        if ends:
            self.found, self._held = True, ""
            return text[: min(ends)[1]]
        certain = len(text) - self._maybe_begun(text)
        self._held = text[certain:]
        return text[:certain]

    def end(self) -> str:
        """What was held back in vain."""
        held, self._held = self._held, ""
        return held

    def _maybe_begun(self, text: str) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        longest = min(len(text), max(map(len, self._stop)) - 1)
        return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in self._stop)), 0)
