"""The Python face, for a terminal: a description that is far from what T2L was trained on is warned of on stderr, and
one that would not be read to its end is refused."""

from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.text import Text

from t2l.embedded import CHECKPOINT_DIR
from t2l.text.encoder import TextFeatures, TokenEncoder
from t2l.text.nearness import NearnessIndex, far_warning, mean_states
from t2l.text_to_lora import TextToLora, find_checkpoint


class WatchedTextToLora(TextToLora):
    """Warns as it reads, so that nothing is encoded twice."""

    _index: NearnessIndex | None = None

    @classmethod
    def open(cls, checkpoint: str | None) -> Self:
        """With its index, if it has one. Raises as `from_pretrained` does, CheckpointError for the index."""
        folder = find_checkpoint(checkpoint) if checkpoint else CHECKPOINT_DIR
        model = cls.from_pretrained(folder)
        model._index = NearnessIndex.load(folder, model.origin.sha256)
        return model

    def read(self, descriptions: Sequence[str]) -> TextFeatures:
        if isinstance(self.encoder, TokenEncoder):
            self.encoder.check_whole(descriptions)
        features = super().read(descriptions)
        if self._index is not None:
            nearness_N = self._index.nearness(mean_states(features))
            rows = zip(descriptions, nearness_N.tolist(), self._index.is_far(nearness_N).tolist(), strict=True)
            for text, nearness, far in rows:
                if far:
                    warning = Text(f"warning: '{text:.80}': {far_warning(nearness)}", style="yellow")
                    Console(stderr=True).print(warning, soft_wrap=True)
        return features
