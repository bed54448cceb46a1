"""A reward model by TRL alone, as one would write it by hand: the baseline of `bench learn`.

    python -m tests.benchmarks.by_hand_reward RUN_DIR STEPS BATCH_SIZE LEARNING_RATE

Reads the RUN_DIR of our recipe (same base, pairs, seed, warm-up and LoRA), shuffles as TRL does, and prints its
held-out accuracy, where ties count half, by how much it prefers what was chosen in each held-out pair, and the
CPU-seconds of its training loop as one line of JSON.
"""

import json
import sys
import time
from pathlib import Path


def main(folder: Path, steps: int, batch_size: int, learning_rate: float) -> None:
    import numpy as np
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    from training.recipes.loading import compute_dtype
    from training.recipes.options import parse_options

    config = json.loads((folder / "config.json").read_text())
    options = parse_options("reward", config["options"])
    columns = ["prompt", "chosen", "rejected"]
    train, held_out = (
        load_dataset("json", data_files=str(folder / f"{split}.jsonl"), split="train").select_columns(columns)
        for split in ("train", "held_out")
    )
    parts = -(-batch_size // options.micro_batch_size)
    trainer = RewardTrainer(
        model=config["base"],
        processing_class=AutoTokenizer.from_pretrained(config["base"]),
        train_dataset=train,
        eval_dataset=held_out,
        peft_config=LoraConfig(
            task_type="SEQ_CLS",
            r=options.lora_rank,
            lora_alpha=options.lora_alpha,
            target_modules="all-linear",
            modules_to_save=["score"],
        ),
        args=RewardConfig(
            output_dir=str(folder / "trl"),
            model_init_kwargs={"dtype": compute_dtype()},
            max_steps=steps,
            per_device_train_batch_size=batch_size // parts,
            gradient_accumulation_steps=parts,
            per_device_eval_batch_size=16,
            learning_rate=learning_rate,
            warmup_steps=options.warmup_steps,
            max_length=options.max_length,
            bf16=compute_dtype() == torch.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            activation_checkpointing=torch.cuda.is_available(),
            seed=config["seed"],
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
    )
    started = time.process_time()
    trainer.train()
    seconds = time.process_time() - started
    margins: list[float] = []
    trainer.model.eval()
    for batch in trainer.get_eval_dataloader():
        with torch.no_grad(), trainer.compute_loss_context_manager():
            scores = trainer.model(**batch).logits[:, 0].float()  # chosen rows, then rejected ones
        chosen, rejected = scores.chunk(2)
        margins += (chosen - rejected).tolist()
    accuracy = float((np.sign(margins) + 1).mean() / 2)
    print("\n" + json.dumps({"accuracy": accuracy, "margins": margins, "cpu_seconds": seconds}))


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: python -m tests.benchmarks.by_hand_reward RUN_DIR STEPS BATCH_SIZE LEARNING_RATE")
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
