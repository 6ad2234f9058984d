"""Train a text-to-LoRA model through the frozen LLM, on a Ray cluster, or on this machine if there is none.

    python jobs/train_sft.py --config jobs/configs/embedded_tiny.yaml train.steps=200
    ray job submit --working-dir . -- python jobs/train_sft.py --config jobs/configs/embedded_tiny.yaml
    python jobs/train_sft.py --config jobs/configs/embedded_demo.yaml condition=static     # one LoRA for all tasks

By SFT on the tasks' own answers, or with train.objective=distill on the base model's, whose prompt then holds the
definition. Started again with the same name and settings, it goes on where it stopped.
"""

import sys

from t2l.cluster.command import train_command

if __name__ == "__main__":
    sys.exit(train_command(__doc__))
