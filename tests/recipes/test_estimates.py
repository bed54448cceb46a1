"""What a run is expected to take, from the shape of its model and how much it computes."""

import torch
from peft import TaskType, get_peft_model
from transformers import AutoModelForCausalLM

from training.recipes.estimates import (
    Load,
    Machine,
    Shape,
    estimate_disk,
    estimate_memory,
    estimate_seconds,
    read_shape,
)
from training.recipes.loading import lora_config

BIG = Shape(
    parameters=8_000_000_000, file_bytes=16_000_000_000, width=4096, inner=14_336, layers=32, heads=32,
    key_width=1024, vocabulary=128_256,
)  # fmt: skip
OPTIONS = {"lora_rank": 16, "batch_size": 64, "micro_batch_size": 2, "steps": 200, "eval_steps": 50}


def test_the_shape_is_read_from_the_files_of_the_model(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    shape = read_shape(tiny_model)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert (shape.width, shape.layers, shape.heads, shape.key_width) == (32, 2, 2, 16)
    trained = get_peft_model(model, lora_config(4, 8, TaskType.CAUSAL_LM))
    learnt = sum(p.numel() for p in trained.parameters() if p.requires_grad)
    assert shape.adapter_parameters(4) == learnt


def test_a_model_of_eight_billion_fits_a_card_of_24_gb_as_the_preset_says():
    load = Load(together=4 * 1024, completions_together=1024, row=1024, step=64 * 2048.0)
    memory = estimate_memory("dpo", OPTIONS, BIG, load, Machine("cuda", 2))
    assert BIG.adapter_parameters(16) == 41_943_040
    assert memory["weights"] == 16_000_000_000
    assert memory["peak"] < 24e9
    more = Load(together=16 * 1024, completions_together=8 * 1024, row=1024, step=64 * 2048.0)
    assert estimate_memory("dpo", OPTIONS, BIG, more, Machine("cuda", 2))["peak"] > 24e9


def test_time_is_that_of_an_earlier_run_when_there_was_one():
    load = Load(together=4096, completions_together=1024, row=1024, step=64 * 200.0)
    rule = estimate_seconds("dpo", OPTIONS, BIG, load, Machine("cuda", 2), None)
    assert rule["by"] is None
    earlier = {"by": "dpo of First", "seconds_per_row": 0.5, "tokens_per_row": None}
    assert estimate_seconds("dpo", OPTIONS, BIG, load, Machine("cpu", 4), earlier) == {
        "seconds": 15 + 200 * 64 // 2,
        "by": "dpo of First",
    }
    longer = {**earlier, "tokens_per_row": 100.0}  # rows are twice as long now
    assert estimate_seconds("dpo", OPTIONS, BIG, load, Machine("cpu", 4), longer)["seconds"] == 15 + 200 * 64


def test_disk_is_that_of_the_checkpoints_kept_and_one_being_written():
    disk = estimate_disk("ppo", OPTIONS, BIG)
    assert disk == {"checkpoints": 3 * 24 * 41_943_040, "output": 4 * 41_943_040, "total": 76 * 41_943_040}


def test_all_weights_take_their_gradients_moments_and_a_reference_and_are_whole_in_each_checkpoint():
    load = Load(together=4096, completions_together=1024, row=1024, step=64 * 200.0)
    full = OPTIONS | {"weights": "full"}

    def of_8e9(method: str, machine: Machine) -> tuple[float, float]:
        memory = estimate_memory(method, full, BIG, load, machine)
        return memory["weights"] / 8e9, memory["adapters"] / 8e9

    # Float32 themselves, and autocast's copies in bfloat16; then gradients and two moments.
    assert of_8e9("sft", Machine("cuda", 2)) == (4 + 2, 12)
    assert of_8e9("dpo", Machine("cuda", 2)) == (4 + 2 + 4, 12)
    assert of_8e9("reward", Machine("cpu", 4)) == (4, 12)
    assert estimate_disk("dpo", full, BIG) == {
        "checkpoints": 3 * 12 * 8_000_000_000, "output": 16_000_000_000, "total": 304_000_000_000,
    }  # fmt: skip
    adapter, whole = (
        estimate_seconds("sft", OPTIONS | {"weights": weights}, BIG, load, Machine("cuda", 2), None)[
            "seconds"
        ]
        for weights in ("lora", "full")
    )
    assert adapter < whole < 1.6 * adapter
