"""PPO by TRL 1.12's experimental PPOTrainer, as one would write it by hand: the baseline of `bench train` for PPO.

    python -m tests.benchmarks.by_hand_ppo RUN_DIR TRL_FOLDER

TRL removed the trainer in 1.13, so that version is installed apart, into TRL_FOLDER, and nothing else uses it. It
reads the RUN_DIR of our recipe (same base, reward model, prompts, seed and options), leaves its adapter in
RUN_DIR/output and prints one line of JSON: CPU-seconds of the loop, updates and peak memory.

LoRA on policy and value model, as ours; TRL has no schedule for the KL coefficient, no early stop and no learning rate
of its own for the value model, so `bench train` turns ours off or makes them equal.
"""

import json
import resource
import sys
import time
from pathlib import Path


def main(folder: Path) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from training.recipes.loading import compute_dtype
    from training.recipes.options import parse_options

    config = json.loads((folder / "config.json").read_text())
    options = parse_options("ppo", config["options"])
    # Ours is in units of the spread of scores, TRL's in those of the reward model itself.
    spread = json.loads((Path(config["reward_model"]) / "recipe.json").read_text())["score_spread"]
    dtype = compute_dtype()
    torch.manual_seed(config["seed"])
    tokenizer = AutoTokenizer.from_pretrained(config["base"], padding_side="left")
    rows = [json.loads(line) for line in (folder / config["data"]["train"]).read_text().split("\n") if line]
    prompts = Dataset.from_list(
        [
            {
                "input_ids": tokenizer.apply_chat_template(
                    row["prompt"], add_generation_prompt=True, return_dict=False
                )
            }
            for row in rows
        ]
    )

    def judge() -> torch.nn.Module:
        found = AutoModelForSequenceClassification.from_pretrained(config["base"], num_labels=1, dtype=dtype)
        found.config.pad_token_id = tokenizer.pad_token_id
        return found

    lora = {"r": options.lora_rank, "lora_alpha": options.lora_alpha, "target_modules": "all-linear"}
    reward_model = PeftModel.from_pretrained(judge(), config["reward_model"]).merge_and_unload()
    value_model = get_peft_model(judge(), LoraConfig(task_type="SEQ_CLS", **lora)).base_model.model
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=str(folder / "trl"),
            total_episodes=options.steps * options.batch_size,
            per_device_train_batch_size=options.micro_batch_size,
            gradient_accumulation_steps=options.batch_size // options.micro_batch_size,
            num_mini_batches=options.mini_batches,
            local_rollout_forward_batch_size=options.micro_batch_size,
            num_ppo_epochs=options.epochs,
            response_length=options.max_new_tokens,
            temperature=options.temperature,
            stop_token="eos",
            missing_eos_penalty=options.missing_eos_penalty * spread,
            kl_coef=options.kl_coefficient,
            cliprange=options.clip_range,
            cliprange_value=options.value_clip_range,
            vf_coef=1.0,
            gamma=options.gamma,
            lam=options.gae_lambda,
            learning_rate=options.learning_rate,
            lr_scheduler_type="constant",
            max_grad_norm=options.max_grad_norm,
            num_sample_generations=0,
            bf16=dtype == torch.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            seed=config["seed"],
            disable_tqdm=True,
        ),
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(config["base"], dtype=dtype),
        ref_model=None,
        reward_model=reward_model,
        value_model=value_model,
        train_dataset=prompts,
        eval_dataset=prompts.select(range(min(4, len(prompts)))),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **lora),
    )
    before = time.process_time()
    trainer.train()
    seconds = time.process_time() - before
    trainer.policy_model.save_pretrained(folder / "output")
    print(
        "\n"
        + json.dumps(
            {
                "cpu_seconds_loop": seconds,
                "updates": options.steps * options.epochs * options.mini_batches,
                "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
        )
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tests.benchmarks.by_hand_ppo RUN_DIR TRL_FOLDER")
    sys.path.insert(0, sys.argv[2])
    main(Path(sys.argv[1]))
