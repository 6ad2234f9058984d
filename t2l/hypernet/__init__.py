"""The hypernetwork: from embeddings of task descriptions to LoRA weights, in one forward pass."""

from t2l.hypernet.model import HyperNetwork

__all__ = ["HyperNetwork"]
