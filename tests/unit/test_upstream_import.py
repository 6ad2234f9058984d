"""`t2l import`: upstream's folders give upstream's adapters, in any process; what cannot be imported is named.

The folders in ../shared/upstream_checkpoints were written by upstream's own code, with what it generated from them.
"""

import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel, BertTokenizer
from typer.testing import CliRunner
from upstream_folders import OBJECTIVES, VARIANTS, Shape, random_state, scaled, upstream_adapter, write_folder

from t2l import TextToLora
from t2l.checkpoint import load_checkpoint, read_info
from t2l.cli import app
from t2l.errors import CheckpointError, HubAccessError
from t2l.interop.upstream import import_upstream
from t2l.lora.peft_io import load_peft
from t2l.lora.weights import LoraWeights

SHARED = Path(__file__).resolve().parents[3] / "shared" / "upstream_checkpoints"
REAL = sorted(SHARED.iterdir()) if SHARED.is_dir() else []
needs_shared = pytest.mark.skipif(not REAL, reason=f"{SHARED} is not there")

SQUARE = Shape()
MANY = Shape(
    {"down_proj": (28, 20), "k_proj": (20, 12), "up_proj": (20, 28), "q_proj": (20, 24)},
    layers=3,
    rank=5,
    latent=12,
    head=10,
    embedding=7,
)
SFT_M = {**VARIANTS["M"], **OBJECTIVES["SFT"]}
PARITY = """
import sys
from pathlib import Path
from safetensors.torch import load_file
from t2l.checkpoint import load_checkpoint
from t2l.interop.upstream import import_upstream

for folder in Path(sys.argv[1]).iterdir():
    expected, ours = load_file(folder / "expected.safetensors"), Path(sys.argv[2], folder.name)
    import_upstream(folder, ours)
    adapters = load_checkpoint(ours).model.hypernet(expected.pop("task_emb"))
    for number in range(len(adapters)):
        for key, tensor in adapters.state_dict(number).items():
            theirs = expected.pop(f"adapter.{number}.{key}")
            error = (tensor - theirs).abs().max() / theirs.abs().max()
            assert error < 1e-5, (folder.name, number, key, error)
    assert not expected
"""


def made(folder: Path, embeddings: Tensor) -> LoraWeights:
    with torch.no_grad():
        return load_checkpoint(folder).model.hypernet(embeddings)


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * theirs.abs().max().item())


# ---- the same tensors


@needs_shared
def test_real_folders_give_upstreams_adapters_under_any_hash_seed(tmp_path: Path) -> None:
    def run(seed: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PARITY, str(SHARED), str(tmp_path / str(seed))]
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(run, range(10)):
            assert result.returncode == 0, result.stderr
    for folder in REAL:
        files = {(tmp_path / str(seed) / folder.name / "model.safetensors").read_bytes() for seed in range(10)}
        assert len(files) == 1, "the same bytes in every process"


@needs_shared
@pytest.mark.parametrize("folder", REAL, ids=lambda folder: folder.name)
def test_the_restatement_is_upstreams(folder: Path) -> None:
    expected = load_file(folder / "expected.safetensors")
    state = torch.load(folder / "hypermod.pt", weights_only=True)
    args = yaml.safe_load((folder / "args.yaml").read_text())
    for number, embedding in enumerate(expected["task_emb"]):
        for key, tensor in upstream_adapter(state, args, ["v_proj", "q_proj"], embedding).items():
            side, name = key.split(".")
            for layer in range(2):
                theirs = f"adapter.{number}.base_model.model.model.layers.{layer}.self_attn.{name}.lora_{side}.weight"
                assert_close(tensor[layer], expected[theirs])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_gives_the_restatements_adapters(tmp_path: Path, variant: str, objective: str) -> None:
    args, targets = {**VARIANTS[variant], **OBJECTIVES[objective]}, list(MANY.sizes)
    state, embeddings = random_state(MANY, args), torch.randn(2, MANY.embedding)
    import_upstream(write_folder(tmp_path / "theirs", state, args, targets), tmp_path / "ours")
    ours = made(tmp_path / "ours", embeddings)
    assert ours.spec.module_names == tuple(targets)
    assert [module.path for module in ours.spec.modules] == [
        "mlp.down_proj", "self_attn.k_proj", "mlp.up_proj", "self_attn.q_proj",
    ]  # fmt: skip
    assert ours.spec.scaling == 16 / 5**0.5
    for number, embedding in enumerate(embeddings):
        for key, tensor in upstream_adapter(state, args, targets, embedding).items():
            assert_close((ours.A if key[0] == "A" else ours.B)[key[2:]][number], tensor)


def test_the_order_of_modules_is_that_of_adapter_config(tmp_path: Path) -> None:
    state = random_state(SQUARE, SFT_M)
    embedding = torch.randn(1, SQUARE.embedding)
    for order in (["v_proj", "q_proj"], ["q_proj", "v_proj"]):
        ours = tmp_path / f"ours-{order[0]}"
        import_upstream(write_folder(tmp_path / order[0], state, SFT_M, order), ours)
        theirs = upstream_adapter(state, SFT_M, order, embedding[0])
        assert_close(made(ours, embedding).A["q_proj"][0], theirs["A.q_proj"])
    one, other = (made(tmp_path / f"ours-{name}", embedding).A["q_proj"] for name in ("v_proj", "q_proj"))
    assert not torch.allclose(one, other, atol=0.1), "the order matters"


def test_modules_of_unusual_names_are_looked_up_in_the_base_model(tmp_path: Path) -> None:
    from transformers import Phi3Config

    Phi3Config(
        hidden_size=20, intermediate_size=28, num_attention_heads=5, num_hidden_layers=2, vocab_size=9, pad_token_id=0
    ).save_pretrained(tmp_path / "phi")
    state = random_state(Shape({"qkv_proj": (20, 60)}), SFT_M)
    theirs = write_folder(tmp_path / "theirs", state, {**SFT_M, "model_dir": "no/such"}, ["qkv_proj"])
    import_upstream(theirs, tmp_path / "ours", [f"base.path={tmp_path / 'phi'}"])
    [module] = read_info(tmp_path / "ours").spec.modules
    assert str(module) == "self_attn.qkv_proj [20 -> 60]"
    with pytest.raises(HubAccessError, match="no/such"):
        import_upstream(theirs, tmp_path / "other")


# ---- from a description to an adapter


def test_an_imported_folder_generates_like_any_other(tiny_base: Path, tmp_path: Path) -> None:
    state, description = random_state(SQUARE, SFT_M), "sort the words"
    theirs = write_folder(tmp_path / "theirs", state, SFT_M, ["v_proj", "q_proj"])
    encoder = cls_encoder(tmp_path, SQUARE.embedding)
    options = ["-o", tmp_path / "ours", f"base.path={tiny_base}", f"encoder.model={encoder}"]
    for command in (
        ["import", theirs, *options],
        ["generate", description, "-o", tmp_path / "adapter", "--checkpoint", tmp_path / "ours"],
    ):
        result = CliRunner().invoke(app, [str(part) for part in command])
        assert result.exit_code == 0, result.output
    inputs = BertTokenizer.from_pretrained(tmp_path / "bert")(f"{description}.", return_tensors="pt")
    with torch.no_grad():
        embedding = scaled(BertModel.from_pretrained(tmp_path / "bert")(**inputs).last_hidden_state[0, 0])
    ours = load_peft(tmp_path / "adapter")
    for key, tensor in upstream_adapter(state, SFT_M, ["v_proj", "q_proj"], embedding).items():
        assert_close((ours.A if key[0] == "A" else ours.B)[key[2:]][0], tensor)


def test_without_emb_model_the_base_reads_the_description(tiny_base: Path, tmp_path: Path) -> None:
    state = random_state(Shape(embedding=32), SFT_M)
    args = {**SFT_M, "emb_model": "", "model_dir": str(tiny_base)}
    import_upstream(write_folder(tmp_path / "theirs", state, args, ["v_proj", "q_proj"]), tmp_path / "ours")
    embedding = TextToLora.from_pretrained(tmp_path / "ours").embed(["sort the words"])[0]
    inputs = AutoTokenizer.from_pretrained(tiny_base)("sort the words.", return_tensors="pt")
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.bfloat16, attn_implementation="eager")
    with torch.no_grad():
        states = base(inputs["input_ids"], output_hidden_states=True).hidden_states[-1]
    assert_close(embedding, scaled(states[0, -1]), tolerance=1e-3)


def cls_encoder(folder: Path, size: int) -> Path:
    """A tiny random BERT, as sentence-transformers reads gte: the first token's state."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    bert = folder / "bert"
    torch.manual_seed(0)
    BertModel(
        BertConfig(vocab_size=12, hidden_size=size, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ).save_pretrained(bert)
    (bert / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sort", "words", "."]))
    BertTokenizer(str(bert / "vocab.txt")).save_pretrained(bert)
    encoder = SentenceTransformer(modules=[Transformer(str(bert)), Pooling(size, "cls")], device="cpu")
    encoder.save(str(folder / "encoder"))
    return folder / "encoder"


# ---- what is refused


class Malicious:
    """Makes a file when it is unpickled without care."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("hidden", [True, False], ids=["among the tensors", "bare"])
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path: Path, hidden: bool) -> None:
    state, trap = random_state(SQUARE, SFT_M), tmp_path / "sprung"
    theirs = write_folder(tmp_path / "theirs", state, SFT_M, ["v_proj", "q_proj"])
    if hidden:
        torch.save(OrderedDict(state, more=Malicious(trap)), theirs / "hypermod.pt")
    else:
        (theirs / "hypermod.pt").write_bytes(pickle.dumps(Malicious(trap)))
    result = CliRunner().invoke(app, ["import", str(theirs), "-o", str(tmp_path / "ours")])
    assert result.exit_code == 1
    assert "is refused, for it holds more than tensors" in result.stderr
    assert not trap.exists()
    assert not (tmp_path / "ours").exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(theirs / "hypermod.pt", weights_only=True)
    pickle.loads(pickle.dumps(Malicious(trap)))
    assert trap.exists(), "the trap works"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exp_setup": "hyper_vera"}, "exp_setup: hyper_vera"),
        ({"encoder_type": "vq"}, "encoder_type: vq"),
        ({"use_one_hot_task_emb": True}, "use_one_hot_task_emb: True"),
        ({"use_inp_as_desc": True}, "use_inp_as_desc: True"),
        ({"training_task": "dpo"}, "training_task: dpo"),
        ({"shared_AB_head": False, "autoreg_gen": True}, "autoreg_gen: true with shared_AB_head: false"),
        ({"training_task": "recon", "factorized": False}, "factorized: false with training_task: recon"),
        ({"emb_model": "Salesforce/SFR-Embedding-2_R"}, "emb_model: Salesforce/SFR-Embedding-2_R"),
        ({"autoreg_gen": True, "learnable_pos_emb": True}, "does not fit its args.yaml"),
        ({"shared_AB_head": False}, "does not fit its args.yaml"),
    ],
)
def test_args_that_cannot_be_imported_are_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    theirs = write_folder(tmp_path / "t", random_state(SQUARE, SFT_M), {**SFT_M, **changes}, ["v_proj", "q_proj"])
    with pytest.raises(CheckpointError) as refusal:
        import_upstream(theirs, tmp_path / "ours")
    assert said in str(refusal.value)
    assert not (tmp_path / "ours").exists()


def test_tensors_that_are_missing_or_surplus_are_named(tmp_path: Path) -> None:
    state = random_state(SQUARE, SFT_M)
    for number, (broken, said) in enumerate(
        [
            ({**state, "vera_A": torch.zeros(2)}, "'vera_A'"),
            ({name: tensor for name, tensor in state.items() if name != "mlp1.mlp.4.bias"}, "block1.mlp.4.bias"),
            ({name: tensor for name, tensor in state.items() if name != "out_emb.q_proj.B"}, "'out_emb.q_proj.B'"),
            ({name: tensor for name, tensor in state.items() if "mixer" not in name}, "'mixer.4.weight'"),
        ]
    ):
        with pytest.raises(CheckpointError, match=said):
            import_upstream(
                write_folder(tmp_path / str(number), broken, SFT_M, ["v_proj", "q_proj"]), tmp_path / "ours"
            )


def test_folders_that_are_something_else_say_so(tmp_path: Path) -> None:
    state = random_state(SQUARE, SFT_M)

    def refusal(name: str, targets: list[str] | str = "v_proj q_proj", **lora: Any) -> str:
        folder = tmp_path / name
        if not folder.exists():
            write_folder(folder, state, SFT_M, targets.split() if isinstance(targets, str) else targets, **lora)
        with pytest.raises(CheckpointError) as raised:
            import_upstream(folder, tmp_path / "ours")
        return str(raised.value)

    assert "has target_modules ['q_proj']" in refusal("fewer", "q_proj")
    assert "has r: 4, but" in refusal("rank", r=4)
    assert "use_dora=True" in refusal("dora", use_dora=True)
    for name, content, said in (
        ("hypermod.pt", b"PK\3\4 torn", "is damaged"),
        ("args.yaml", b"!!python/object:os.system {}", "is no plain YAML"),
        ("args.yaml", b"model_dir: x", "lacks training_task"),
        ("args.yaml", b"training_task: sft\nmodel_dir:", "lacks model_dir"),
        ("args.yaml", b"- 1", "is no list of settings"),
        ("adapter_config.json", b"{", "is no valid JSON"),
    ):
        folder = write_folder(tmp_path / "-".join((name, *said.split())), state, SFT_M, ["v_proj", "q_proj"])
        (folder / name).write_bytes(content)
        assert said in refusal(folder.name)
        (folder / name).unlink()
        assert name in refusal(folder.name), "a missing file is named"
