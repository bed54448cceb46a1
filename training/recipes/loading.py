"""Open models, tokenizers and adapters from local folders: safetensors only, no pickle, no code out of a folder."""

import os
import warnings
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from training.recipes import model_folders
from training.recipes.fitting import refuse_full_from_adapter
from training.recipes.run_dir import RecipeError
from training.recipes.training_options import TrainingOptions

FROM_FOLDER: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
FLOATS = (torch.float32, torch.bfloat16, torch.float16)  # as which whole models are stored
# Tried in this order when a model has no pad token of its own, or one that equals its end-of-sequence token.
PAD_CANDIDATES = ("<|endoftext|>", "<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<unk>")


def be_quiet() -> None:
    """Keep progress bars and advice to library users out of the log that a researcher reads."""
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)


def use_threads(threads: int | None) -> None:
    """Compute with this many threads; None leaves all cores. Equal weights after a resume need an equal number."""
    if threads is not None:
        torch.set_num_threads(threads)


def has_gpu() -> bool:
    return torch.cuda.is_available()


def compute_dtype() -> torch.dtype:
    """bfloat16 where the hardware is faster in it, else float32.

    A CPU is by a matrix unit (x86: AMX, four times) or its own instructions for it (ARM). The vector instructions of
    x86, AVX512_BF16, are not enough: where there are those alone, a core made 83 billion operations a second of a
    product of matrices and 160 in float32; sampling and PPO took 1.3 times as long in bfloat16, evaluations 1.7.
    """
    if has_gpu():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    cpu = torch.cpu.get_capabilities()
    return torch.bfloat16 if cpu.get("amx_bf16") or cpu.get("bf16") else torch.float32


def training_dtype(options: TrainingOptions) -> torch.dtype:
    """How a base is held in memory while it trains.

    Weights that learn are held in float32, or bfloat16 would round small steps away; autocast computes with them in
    `compute_dtype()`. A frozen base is held as it is computed with.
    """
    return torch.float32 if options.weights == "full" else compute_dtype()


def dtype_of(folder: Path) -> torch.dtype:
    """The number format of a model's stored weights: that of its first tensor."""
    first = sorted(folder.glob("*.safetensors"))[0]
    with safe_open(first, "pt") as file:
        dtype = file.get_tensor(next(iter(file.keys()))).dtype
    if dtype not in FLOATS:
        raise RecipeError(
            f"{folder} holds weights as {dtype}, as which new ones can't be saved. Save it as bfloat16 first."
        )
    return dtype


def check_folder(folder: Path, config_name: str) -> dict[str, Any]:
    """The parsed `config_name` of a model or adapter folder. Raises RecipeError when the folder is not to be
    trusted.
    """
    check = model_folders.check_model if config_name == "config.json" else model_folders.check_adapter
    return check(folder)


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a chat model, with a pad token that is not its end-of-sequence token."""
    check_folder(base, "config.json")
    tokenizer = AutoTokenizer.from_pretrained(base, **FROM_FOLDER)
    if not tokenizer.chat_template:
        raise RecipeError(
            f"{base} has no chat template, so it cannot follow a conversation. Use an instruct model."
        )
    if tokenizer.eos_token_id is None:
        raise RecipeError(
            f"{base} names no end-of-sequence token. Set eos_token in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        vocabulary = tokenizer.get_vocab()
        usable = [token for token in PAD_CANDIDATES if token in vocabulary and token != tokenizer.eos_token]
        if not usable:
            raise RecipeError(
                f"{base} has no pad token apart from {tokenizer.eos_token}. Set pad_token to another one."
            )
        tokenizer.pad_token = usable[0]
    return tokenizer


def attention_for(longest: int) -> str:
    """Which attention to train with, given the tokens of the longest row.

    PyTorch's fused attention has a slow backward in bfloat16 on a CPU: rows of 130 tokens cost a third more than with
    plain matrix products. Those keep every (seq, seq) table for the backward, so they are for short rows only.
    """
    return "eager" if longest <= 256 and not has_gpu() else "sdpa"


def load_policy(
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    attention: str = "sdpa",
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """The causal language model in `base`, by default in the dtype this machine computes with, on its card.

    What a trainer is to spread over several cards stays beside them.
    """
    config = check_folder(base, "config.json")
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=dtype or compute_dtype(), use_safetensors=True, **FROM_FOLDER
    )
    _agree_on_tokens(model, tokenizer, config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    # Keys and values are kept as usual, whatever was set while the model was trained elsewhere.
    model.generation_config.use_cache = model.generation_config.cache_implementation = None
    # After a prompt, `generate` asks for the logits of its last token: a slice with gaps, for which torch on a CPU
    # would copy the whole language head for each row. That took as long as 24 tokens, and a gigabyte at 16 rows.
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    return model if _is_to_be_sharded() else placed(model)


def load_reward_base(
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    attention: str = "sdpa",
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """The model in `base` with a fresh score head instead of its language head. The head is random: seed first.

    A base that is a whole reward model keeps its own.
    """
    config = check_folder(base, "config.json")
    model = AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=1,
        dtype=dtype or compute_dtype(),
        attn_implementation=attention,
        use_safetensors=True,
        **FROM_FOLDER,
    )
    _agree_on_tokens(model, tokenizer, config)
    model.score = Float32Head(model.score)
    return model if _is_to_be_sharded() else placed(model)


def placed(model: PreTrainedModel) -> PreTrainedModel:
    """The model on this process's card, where there is one."""
    return model.cuda() if has_gpu() else model


def _is_to_be_sharded() -> bool:
    """Whether the trainer will spread the model over the cards (FSDP): whole, it may fit none of them."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


class Float32Head(torch.nn.Linear):
    """A score head that computes in float32 whatever surrounds it.

    In bfloat16 a score near 5 moves in steps of 0.03, and two completions of different worth come out equal.
    """

    def __init__(self, head: torch.nn.Linear) -> None:
        super().__init__(head.in_features, head.out_features, bias=head.bias is not None, dtype=torch.float32)
        self.load_state_dict(head.state_dict())

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            # Spread over several cards, the weights come together in bfloat16. (batch, seq, hidden) -> (batch, seq, 1)
            return torch.nn.functional.linear(hidden.float(), self.weight.float(), bias)


def lora_config(rank: int, alpha: int, task: TaskType) -> LoraConfig:
    """LoRA on every linear layer, without dropout. A reward adapter carries its score head along."""
    return LoraConfig(
        task_type=task,
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        modules_to_save=["score"] if task == TaskType.SEQ_CLS else None,
    )


def with_parent(
    policy: PreTrainedModel, parent: str | None, options: TrainingOptions
) -> tuple[PreTrainedModel | PeftModel, LoraConfig | None]:
    """What a TRL trainer is given to train: the policy under its parent's adapter, or bare with a fresh one to make.

    Bare with none to make, where all weights learn. The parent was checked by check_parent.
    """
    if options.weights == "full":
        return policy, None
    if parent is None:
        return policy, lora_config(options.lora_rank, options.lora_alpha, TaskType.CAUSAL_LM)
    return PeftModel.from_pretrained(policy, parent, is_trainable=True), None


def without_adapter(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model itself, whether it wears an adapter or not."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def check_parent(parent: str | None, task: TaskType, base: Path, options: TrainingOptions) -> None:
    """Raise RecipeError unless a run with these options can go on from this adapter. None is the base itself."""
    if parent is not None:
        refuse_full_from_adapter(options)
        check_adapter(Path(parent), task, base)


def check_adapter(adapter: Path, task: TaskType, base: Path | None = None) -> PeftConfig:
    """The configuration of a LoRA adapter meant for `task`, or RecipeError. With `base`, it must fit its layers."""
    kind = {"CAUSAL_LM": "a policy", "SEQ_CLS": "a reward model"}
    config = model_folders.check_adapter(adapter, base)
    if config.get("task_type") != task.value:
        found = (
            f"{config['peft_type']} adapter of {kind.get(config.get('task_type'), config.get('task_type'))}"
        )
        raise RecipeError(f"{adapter} is a {found}; {kind[task.value]}'s LoRA adapter is needed here.")
    if base is not None:
        model_folders.refuse_disagreement(base, {kind[task.value].partition(" ")[2]: adapter})
    return PeftConfig.from_pretrained(adapter)


def refuse_larger_tokenizer(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
    """Raise RecipeError for a tokenizer with tokens that a model of that vocabulary does not know."""
    if len(tokenizer) > vocabulary:
        raise RecipeError(
            f"The tokenizer knows {len(tokenizer)} tokens, the model {vocabulary}: they do not belong together. "
            "Save both into one folder again."
        )


def _agree_on_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: dict[str, Any]
) -> None:
    """Make the model pad as its tokenizer does; refuse a tokenizer that is not the model's."""
    refuse_larger_tokenizer(tokenizer, config.get("vocab_size", len(tokenizer)))
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
