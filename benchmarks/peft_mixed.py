"""PEFT's way to serve different adapters in one batch, `generate(adapter_names=[...])`: tokens/s, as one JSON line.

    python benchmarks/peft_mixed.py --rows 200 --tokens 64

The adapters are ours, loaded into PEFT from their folders; the answers have a fixed length.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from peft import PeftModel
from serve_load import questions

from t2l import TextToLora
from t2l.text.prompts import PromptFormat
from t2l.train.base import load_base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    asked = questions(arguments.rows)
    t2l = TextToLora.from_pretrained()
    names = [f"adapter{i}" for i in range(len(asked))]
    with tempfile.TemporaryDirectory() as folder:
        for name, adapter in zip(names, t2l.generate([q.description for q in asked]), strict=True):
            adapter.save_pretrained(Path(folder) / name)
        base, tokenizer = load_base(t2l.config.base, t2l.base.model.device)
        model = PeftModel.from_pretrained(base, str(Path(folder) / names[0]), adapter_name=names[0])
        for name in names[1:]:
            model.load_adapter(str(Path(folder) / name), adapter_name=name)
    chat = PromptFormat.of(tokenizer)
    prompts = [chat.prompt(q.input) for q in asked]
    inputs = tokenizer(prompts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
    length = {"max_new_tokens": arguments.tokens, "min_new_tokens": arguments.tokens, "do_sample": False}
    start = time.perf_counter()
    with torch.inference_mode():
        model.eval().generate(**inputs.to(base.device), adapter_names=names, **length)
    seconds = time.perf_counter() - start
    print(json.dumps({"tokens_per_s": len(asked) * arguments.tokens / seconds, "seconds": seconds}))


if __name__ == "__main__":
    main()
