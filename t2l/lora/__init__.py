"""LoRA adapters as tensors over adapters and layers: their shapes, application and storage."""

from t2l.lora.spec import LoraSpec, TargetModule
from t2l.lora.weights import LoraWeights

__all__ = ["LoraSpec", "LoraWeights", "TargetModule"]
