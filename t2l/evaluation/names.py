"""What methods, wordings and splits are called where people read of them, in the order in which they are shown."""

METHOD_NAMES = {
    "base": "base, no definition",
    "definition": "definition in the prompt",
    "few_shot": "3-shot",
    "few_shot_definition": "3-shot with definition",
    "multitask": "multi-task LoRA",
    "average": "average of oracle LoRAs",
    "nearest": "nearest oracle LoRA",
    "arrow": "Arrow routing",
    "hyperdecoder": "Hyperdecoders",
    "one_hot": "T2L one-hot",
    "t2l": "T2L",
    "refined": "T2L refined on 8 examples",
    "oracle": "oracle LoRA",
}
WORDING_NAMES = {
    "seen": "training wording",
    "unseen": "unseen wording",
    "shuffled": "another task's description",
    "junk": "junk text",
    "static": "mean adapter",
}
SPLIT_NAMES = {
    "seen": "seen tasks",
    "held_out": "held-out tasks",
    "novel": "novel to the base too",
    "new_operations": "new operations",
    "free_hand": "free-hand descriptions",
    "benchmarks": "benchmarks",
}


def split_name(split: str) -> str:
    return SPLIT_NAMES.get(split, split.replace("_", " "))


def wording_name(wording: str | None) -> str:
    return WORDING_NAMES.get(wording or "", wording or "no text")
