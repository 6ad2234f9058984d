"""Which layers read the same tensor, and that what they share is made anew for every tensor."""

from t2l.lora.together import reading_together


def test_layers_of_one_parent_by_their_names_in_the_order_of_their_calls() -> None:
    names = (
        "self_attn.v_proj",
        "mlp.up_proj",
        "self_attn.q_proj",
        "mlp.gate_proj",
        "self_attn.o_proj",
        "mlp.down_proj",
    )
    keys = [f"layers.{layer}.{name}" for name in names for layer in range(2)]
    for layer in range(2):
        of_layer = [group for group in reading_together(keys) if f".{layer}." in group[0]]
        names_of = [[key.rpartition(".")[2] for key in group] for group in of_layer]
        assert names_of == [["q_proj", "v_proj"], ["gate_proj", "up_proj"], ["o_proj"], ["down_proj"]]


def test_every_layer_is_in_one_group() -> None:
    keys = ["a.q_proj", "b.q_proj", "a.c_attn", "q_proj"]
    assert sorted(key for group in reading_together(keys) for key in group) == sorted(keys)
