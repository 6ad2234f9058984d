"""Train a text-to-LoRA model to reconstruct a library of LoRAs, on a Ray cluster, or on this machine if there is none.

    python jobs/train_oracles.py -o runs/library --tasks 48
    python jobs/train_recon.py train.library=runs/library data.num_train_tasks=48 train.steps=2000

The library is a folder of PEFT folders, named as the training tasks. Rank and target modules (`lora`) are to be the
library's. Started again with the same name and settings, it goes on where it stopped.
"""

import sys

from t2l.cluster.command import train_command

if __name__ == "__main__":
    sys.exit(train_command(__doc__, ["name=recon", "train.objective=recon"]))
