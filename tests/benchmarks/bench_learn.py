"""Does each method learn? Reward-model accuracy beside plain TRL's, policies against their parent, over-optimisation.

    python3 deploy/dev.py bench learn [--quick] [--json FILE] [--work FOLDER] [--only PART ...]

Three parts, each made by the recipes as the platform runs them:

    reward    On rehearsal preferences (simulated annotators rank what the default model writes) and on
              ../shared/data/hh-rlhf (pairs of at most 256 tokens), several seeds each: held-out accuracy with its
              interval beside a plain TRL script of equal budget, length alone, and the human ceiling. On hh-rlhf equal
              budget is equal steps and pairs, as no completion comes twice. Of rankings the recipe computes each
              completion once where TRL computes every side of every pair, so there it is CPU-seconds of the training
              loop, which are printed: 30 steps of 96 pairs at 5e-4 for TRL's 60 of 24 at 2e-4, and still the fewer
              seconds.
    policies  DPO, RLOO and PPO on the rehearsal's data, and RLOO and PPO on a reward that a program can check. Each is
              measured on held-out prompts against its parent, by the hidden utility of the simulated annotators or by
              that checked reward; with KL, length and best-of-4 beside it.
    curve     PPO for longer, several seeds: reward-model score and hidden utility over KL, on held-out prompts, drawn
              as deploy/pictures/over-optimisation.svg.

The hidden utility never trains anything; it is what simulated annotators blur and rank by. With --work a bench that was
stopped goes on where it was.
"""

import argparse
import gzip
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import rehearsed
from tests.benchmarks.bench_generate import ROOT, default_model
from tests.benchmarks.curve_picture import draw
from training.recipes.held_out import interval_by_cluster, outcomes
from training.recipes.options import parse_options

HH = ROOT.parent / "shared" / "data" / "hh-rlhf"
HH_OPTIONS = {"batch_size": 16, "micro_batch_size": 4, "max_length": 256, "learning_rate": 2e-4}
PARTS = ("reward", "policies", "curve")


@dataclass(frozen=True)
class Sizes:
    train_prompts: int = 140
    held_out_prompts: int = 70
    max_new_tokens: int = 48
    samples: int = 2  # of each contestant to a held-out prompt
    reward_seeds: int = 3
    reward_steps: int = 30
    reward_batch: int = 96
    by_hand_steps: int = 60
    by_hand_batch: int = 24
    by_hand_rate: float = 2e-4
    dpo_steps: int = 32
    online_steps: int = 16
    rloo_steps: int = 48  # each costs about a third of one of PPO: one pass, and no value model
    online_batch: int = 16
    online_held_out: int = 48
    hh_pairs: int = 800
    hh_steps: int = 50  # one pass
    hh_seeds: int = 3
    curve_seeds: int = 3
    curve_steps: int = 18
    curve_every: int = 3
    warmup_steps: int | None = None  # None: those of the recipes


QUICK = Sizes(
    train_prompts=24,
    held_out_prompts=10,
    max_new_tokens=16,
    samples=2,
    reward_seeds=1,
    reward_steps=3,
    dpo_steps=2,
    online_steps=2,
    rloo_steps=2,
    online_batch=8,
    reward_batch=12,
    by_hand_steps=3,
    by_hand_batch=12,
    hh_pairs=24,
    hh_steps=2,
    hh_seeds=1,
    curve_seeds=1,
    curve_steps=2,
    curve_every=1,
    warmup_steps=0,
)


class Learning:
    """One bench in a work folder; each step is made once."""

    def __init__(self, work: Path, base: Path, sizes: Sizes) -> None:
        self.work, self.base, self.sizes = work, base, sizes
        prompts = rehearsed.starter_prompts()
        random.Random(0).shuffle(prompts)
        self.train = prompts[: sizes.train_prompts]
        self.held_out = prompts[sizes.train_prompts : sizes.train_prompts + sizes.held_out_prompts]

    # --- data ---

    def rehearse(self) -> Path:
        """The folder with the rehearsal's data in every form."""
        made = rehearsed.completions_of(
            self.work / "completions",
            self.base,
            self.train + self.held_out,
            adapters={"base": None},
            samples=4,
            max_new_tokens=self.sizes.max_new_tokens,
            seed=1,
        )["base"]
        rows = []
        for split, prompts, texts in (
            ("train", self.train, made[: len(self.train)]),
            ("held_out", self.held_out, made[len(self.train) :]),
        ):
            rows += rehearsed.judged_rows(prompts, texts, split=split, annotators=12, overlap=2)
        rehearsed.write_data(self.work / "data", rows)
        return self.work / "data"

    def run(
        self, name: str, method: str, data: Path, form: str, options: dict[str, Any], **config: Any
    ) -> Path:
        """RUN_DIR of a finished run."""
        folder = self.work / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        for split in ("train", "held_out"):
            lines = (data / f"{form}-{split}.jsonl").read_text().rstrip("\n").split("\n")
            most = self.sizes.online_held_out if form == "prompts" and split == "held_out" else None
            (folder / f"{split}.jsonl").write_text("".join(line + "\n" for line in lines[:most]))
        options = {"save_steps": max(1, options["steps"] // 4), **options}
        if self.sizes.warmup_steps is not None:
            options["warmup_steps"] = self.sizes.warmup_steps
            if method == "ppo":
                options["value_warmup_steps"] = self.sizes.warmup_steps
        rehearsed.run_recipe(
            folder,
            {
                "method": method,
                "base": str(self.base),
                "parent": None,
                "reward_model": None,
                "seed": 1,
                "data": {"train": "train.jsonl", "held_out": "held_out.jsonl"},
                "options": options,
                **config,
            },
        )
        return folder

    # --- reward models ---

    def reward_on_rehearsal(self) -> dict[str, Any]:
        sizes = self.sizes
        runs = (self.judge(seed) for seed in range(1, sizes.reward_seeds + 1))
        return beside_trl("rehearsal", runs, sizes.by_hand_steps, sizes.by_hand_batch, sizes.by_hand_rate)

    def judge(self, seed: int = 1) -> Path:
        """RUN_DIR of a reward model of the rehearsal. That of the first seed also rewards policies."""
        options = {"steps": self.sizes.reward_steps, "batch_size": self.sizes.reward_batch}
        name = "reward" if seed == 1 else f"reward-{seed}"
        return self.run(name, "reward", self.rehearse(), "pairs", options, seed=seed)

    def reward_on_hh(self) -> dict[str, Any] | None:
        if not HH.is_dir():
            print(f"{HH} is missing: the part on hh-rlhf is skipped")
            return None
        runs = (self.judge_of_hh(seed) for seed in range(self.sizes.hh_seeds))
        return beside_trl(
            "hh-rlhf", runs, self.sizes.hh_steps, HH_OPTIONS["batch_size"], HH_OPTIONS["learning_rate"]
        )

    def judge_of_hh(self, seed: int) -> Path:
        data = self.work / f"hh-{seed}"
        write_hh(data, self.base, self.sizes.hh_pairs, seed)
        options = {"steps": self.sizes.hh_steps, **HH_OPTIONS}
        return self.run(f"hh-{seed}", "reward", data, "pairs", options, seed=seed)

    # --- policies ---

    def policies(self) -> dict[str, Any]:
        """{"policies": by name what is known of each, "parent": the same of what they began with}."""
        data, sizes = self.rehearse(), self.sizes
        judge = str(self.judge() / "output")
        online = {
            "steps": sizes.online_steps,
            "batch_size": sizes.online_batch,
            "max_new_tokens": sizes.max_new_tokens,
        }
        checked = {**online, "reward": "length", "target_words": 20}
        more = {"steps": sizes.rloo_steps}
        runs = {
            "dpo": self.run(
                "dpo",
                "dpo",
                data,
                "pairs",
                {"steps": sizes.dpo_steps, "judged_tokens": sizes.max_new_tokens},
                reward_model=judge,
            ),
            "ppo": self.run("ppo", "ppo", data, "prompts", online, reward_model=judge),
            "rloo": self.run("rloo", "rloo", data, "prompts", online | more, reward_model=judge),
            "ppo_checked": self.run("ppo-checked", "ppo", data, "prompts", checked),
            "rloo_checked": self.run("rloo-checked", "rloo", data, "prompts", checked | more),
        }
        found: dict[str, Any] = {}
        by_utility = ("dpo", "ppo", "rloo")
        made = rehearsed.completions_of(
            self.work / "policies",
            self.base,
            self.held_out,
            adapters={"base": None, **{name: runs[name] / "output" for name in by_utility}},
            samples=sizes.samples,
            max_new_tokens=sizes.max_new_tokens,
            seed=2,
        )
        for name, run in runs.items():
            metrics = result_of(run)["metrics"]
            if name in by_utility:
                found[name] = {
                    "by": "hidden utility",
                    **rehearsed.win_rate(self.held_out, made[name], made["base"]),
                    **self._measured(run / "output", judge),
                }
            else:
                found[name] = {
                    "by": "checked reward",
                    **{
                        key: metrics[key] for key in ("win_rate", "interval", "kl", "reward", "parent_reward")
                    },
                    "mean_length": metrics["length"],
                }
            best = ("best_of_4_reward", "best_of_4_win_rate")
            found[name] |= {key: metrics[key] for key in best if key in metrics}
        utility = rehearsed.mean_utility(self.held_out, made["base"])
        return {"policies": found, "parent": {"utility": utility, **self._measured(None, judge)}}

    def _measured(self, adapter: Path | None, judge: str) -> dict[str, float]:
        length = self.sizes.max_new_tokens
        told = rehearsed.measured(
            self.base, adapter, Path(judge), self.held_out, max_new_tokens=length, seed=3
        )
        return {name: told[name] for name in ("kl", "reward", "mean_length")}

    # --- over-optimisation ---

    def curve(self) -> list[dict[str, float]]:
        """Points of KL, reward-model score and hidden utility on held-out prompts, as PPO goes on, for each seed."""
        data, sizes = self.rehearse(), self.sizes
        judge = str(self.judge() / "output")
        options = {
            "steps": sizes.curve_steps,
            "eval_steps": sizes.curve_every,
            "batch_size": sizes.online_batch,
            "max_new_tokens": sizes.max_new_tokens,
            "kl_coefficient": 0.0,
            "kl_target": 0.0,
            "kl_ceiling": 1000.0,
        }
        points: list[dict[str, float]] = []
        for seed in range(sizes.curve_seeds):
            run = self.run(f"curve-{seed}", "ppo", data, "prompts", options, reward_model=judge, seed=seed)
            at = {(line["step"], line["name"]): line["value"] for line in lines_of(run / "metrics.jsonl")}
            asked = {line["prompt_id"]: line["prompt"] for line in lines_of(run / "held_out.jsonl")}
            # Of a run that was stopped and went on, the last counts.
            texts = {(one["step"], one["prompt_id"]): one["text"] for one in lines_of(run / "samples.jsonl")}
            for step in sorted({step for step, _ in texts}):
                written = [
                    (asked[prompt], text) for (at_step, prompt), text in texts.items() if at_step == step
                ]
                points.append(
                    {
                        "seed": seed,
                        "step": step,
                        "kl": at[step, "held_out/kl"],
                        "reward": at[step, "held_out/reward"],
                        "utility": rehearsed.mean_utility(
                            [prompt for prompt, _ in written], [[text] for _, text in written]
                        ),
                    }
                )
        return points


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def result_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def write_hh(folder: Path, base: Path, pairs: int, seed: int) -> None:
    """Train and held-out pairs of hh-rlhf whose sides share their prompt and are short enough for `base`."""
    from training.recipes.loading import load_tokenizer
    from training.recipes.rendering import conversation_ids

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(base)
    rows = []
    for file in sorted(HH.glob("*.jsonl.gz")):
        for line in gzip.decompress(file.read_bytes()).decode().split("\n"):
            if line:
                chosen, rejected = (turns(json.loads(line)[side]) for side in ("chosen", "rejected"))
                if chosen[:-1] == rejected[:-1] and chosen[-1] != rejected[-1] and len(chosen) > 1:
                    rows.append((chosen, rejected))
    random.Random(seed).shuffle(rows)
    kept: list[dict[str, Any]] = []
    for chosen, rejected in rows:
        if max(len(conversation_ids(tokenizer, side)) for side in (chosen, rejected)) <= 256:
            prompt = json.dumps(chosen[:-1])
            kept.append(
                {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:], "prompt_id": prompt}
            )
        if len(kept) == pairs + pairs // 4:
            break
    held = {row["prompt_id"] for row in kept[pairs:]}
    train = [row for row in kept[:pairs] if row["prompt_id"] not in held]
    for split, some in (("train", train), ("held_out", kept[pairs:])):
        (folder / f"pairs-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))


def turns(dialogue: str) -> list[dict[str, str]]:
    """hh-rlhf's text of alternating turns as messages."""
    found = []
    for part in dialogue.split("\n\nHuman: ")[1:]:
        human, *answers = part.split("\n\nAssistant: ")
        found.append({"role": "user", "content": human.strip()})
        found += [{"role": "assistant", "content": answer.strip()} for answer in answers]
    return found


def beside_trl(
    data: str, runs: Iterable[Path], steps: int, batch_size: int, learning_rate: float
) -> dict[str, Any]:
    """Held-out accuracy of reward models beside plain TRL's of equal data and seed: means over the seeds, and each.

    `difference` is that of the means, on the same pairs, with its interval resampled by prompt: what seeds and pairs
    can tell.
    """
    seeds, gained, prompts = [], [], []
    for run in runs:
        ours, plain = result_of(run), by_hand(run, steps, batch_size, learning_rate)
        names = ("accuracy", "interval", "length_baseline", "human_ceiling", "calibration_error")
        seeds.append(
            {name: ours["metrics"][name] for name in names if name in ours["metrics"]}
            | {"cpu_seconds": ours["cpu_seconds_loop"]}
            | {f"baseline_{name}": plain[name] for name in ("accuracy", "cpu_seconds")}
        )
        print(
            "{}, {}: {accuracy:.3f}, plain TRL {baseline_accuracy:.3f}".format(data, run.name, **seeds[-1]),
            flush=True,
        )
        margins, asked = judged_by(run)
        gained += (outcomes(margins) - outcomes(plain["margins"])).tolist()
        prompts += asked
    means = {name: statistics.mean(one[name] for one in seeds) for name in ("accuracy", "baseline_accuracy")}
    interval = [statistics.mean(ends) for ends in zip(*(one["interval"] for one in seeds), strict=True)]
    return {
        **means,
        "interval": interval,
        "difference": statistics.mean(gained),
        "difference_interval": interval_by_cluster(gained, prompts),
        "seeds": seeds,
    }


def judged_by(run: Path) -> tuple[list[float], list[str]]:
    """How much higher a run's reward model scores what was chosen, for each held-out pair; and its prompt.

    Pairs with an empty completion, which the recipe leaves out, are scored as well: TRL's script does so.
    """
    from training.recipes import loading, reward, scoring
    from training.recipes.cutting import Row
    from training.recipes.pairs import read_pairs
    from training.recipes.rendering import conversation_ids

    loading.be_quiet()
    config = json.loads((run / "config.json").read_text())
    base, options = Path(config["base"]), parse_options("reward", config["options"])
    tokenizer = loading.load_tokenizer(base)
    _, learnt, _ = reward.read(run / "train.jsonl", tokenizer, options.max_length, 1)
    longest = max(len(row.ids) for sides in learnt for row in sides)
    attention = loading.attention_for(longest)  # that it was trained with
    model = scoring.load_reward_model(base, run / "output", tokenizer, attention)
    pairs = read_pairs(run / "held_out.jsonl")
    chosen, rejected = (
        [Row(0, tuple(conversation_ids(tokenizer, pair.prompt + getattr(pair, side)))) for pair in pairs]
        for side in ("chosen", "rejected")
    )
    scores = reward.score_pairs(model, tokenizer, list(zip(chosen, rejected, strict=True)))
    return [better - worse for better, worse in scores], [pair.prompt_id for pair in pairs]


def by_hand(run: Path, steps: int, batch_size: int, learning_rate: float) -> dict[str, Any]:
    """What the shortest TRL script says on the data and seed of a run (`by_hand_reward`); kept beside it."""
    kept = run / "by_hand.json"
    if not kept.is_file():
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.by_hand_reward",
            str(run),
            *map(str, (steps, batch_size, learning_rate)),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[-2000:])
        kept.write_text(done.stdout.strip().split("\n")[-1])
    return json.loads(kept.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description="Does each method learn?")
    parser.add_argument("--quick", action="store_true", help="smallest sizes: the mechanics alone")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--work", type=Path, help="keep everything there, and go on from what is there")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some parts only")
    parser.add_argument("--model", type=Path, default=default_model(), help="model folder (safetensors)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Learning(given.work or Path(folder), given.model, QUICK if given.quick else Sizes())
        found: dict[str, Any] = {}
        if "reward" in given.only:
            found["reward_model"] = bench.reward_on_rehearsal()
            found["reward_model_hh"] = bench.reward_on_hh()
        if "policies" in given.only:
            found |= bench.policies()
        if "curve" in given.only:
            found["curve"] = bench.curve()
            if not given.quick:
                draw(found["curve"], ROOT / "deploy" / "pictures" / "over-optimisation.svg")
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
