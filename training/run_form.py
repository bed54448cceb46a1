"""The form of a training run that is launched by hand."""

from typing import Any

from django import forms
from django.db.models import Q

from annotation.models import Project, Round
from training.forms import KeyedForm, option_field
from training.models import Checkpoint, RunInput, TrainingRun
from training.plans import needs_reward_model
from training.recipes.options import METHODS, describe_options
from training.recipes.presets import PRESETS
from training.selectors.datasets import annotators_of
from training.services.runs import newest_reward_model
from training.services.snapshots import Filters

# What is asked first; the others are folded away, and each has a default that works.
FIRST = (
    "steps", "batch_size", "micro_batch_size", "learning_rate", "max_length", "weights", "lora_rank", "beta", "loss",
    "group_size", "reward", "max_new_tokens", "kl_coefficient",
)  # fmt: skip
PREFIX = "option_"
LEARNT_FROM = "Scores the samples, when the reward is reward_model. It must stand on the same base."
MEASURED_BY = (
    "Not needed to learn. With one, the policy also answers held-out prompts before and after, and you see the reward, "
    "KL and length of its answers beside best-of-4 of its parent. It must stand on the same base."
)


class RunForm(KeyedForm):
    """What to train with which method; its options are drawn from the recipe's own dataclass.

    `like` is a run to begin from: a draft that is changed, or a run that is duplicated. `parent` is a checkpoint to go
    on from instead, where the method can.
    """

    name = forms.CharField(
        label="Name",
        max_length=40,
        required=False,
        help_text="What you will look for in lists. Left empty, the method's.",
    )
    dataset = forms.ModelChoiceField(
        label="Dataset",
        queryset=None,
        required=False,
        empty_label="Freeze a new one from rounds",
        help_text="Frozen judgments, or what was imported. A dataset never changes.",
    )
    rounds = forms.ModelMultipleChoiceField(
        label="Rounds to freeze now",
        queryset=None,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="Only when no dataset is chosen above. People's judgments and simulated ones are never mixed.",
    )
    without = forms.ModelMultipleChoiceField(
        label="Leave out what was judged by",
        queryset=None,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="For example somebody who hurried. Their judgments stay in the project.",
    )
    guideline_from = forms.TypedChoiceField(
        label="Judged under",
        coerce=int,
        empty_value=None,
        required=False,
        help_text="Judgments made under earlier versions of the guideline stay out.",
    )
    parent = forms.ModelChoiceField(
        label="Starts from",
        queryset=None,
        empty_label=None,
        help_text="A base model or other whole weights, or a checkpoint of the same kind whose training goes on.",
    )
    reward_model = forms.ModelChoiceField(
        label="Reward model",
        queryset=None,
        required=False,
        empty_label="none",
    )
    seed = forms.IntegerField(
        label="Seed",
        min_value=0,
        max_value=2**31 - 1,
        help_text="Equal seeds and options give equal weights.",
    )

    def __init__(
        self,
        *args: Any,
        project: Project,
        method: str,
        preset: str | None,
        like: TrainingRun | None,
        parent: Checkpoint | None = None,
        **kwargs: Any,
    ) -> None:
        self.project, self.method = project, method
        super().__init__(*args, **kwargs)
        whole = Q(kind=Checkpoint.Kind.BASE) | Q(kind=Checkpoint.Kind.POLICY, all_weights=True)
        checkpoints = project.checkpoints.select_related("base").order_by("-pk")
        self.fields["dataset"].queryset = project.datasets.prefetch_related("rounds").order_by("-pk")
        self.fields["dataset"].label_from_instance = _dataset_label
        self.fields["rounds"].queryset = (
            project.rounds.filter(~Q(comparisons=None)).distinct().order_by("-number")
        )
        self.fields["rounds"].label_from_instance = _round_label
        self.fields["without"].queryset = annotators_of(project)
        versions = project.guidelines.order_by("version").values_list("version", flat=True)
        self.fields["guideline_from"].choices = [
            ("", "any guideline"),
            *((version, f"guideline {version} or later") for version in versions[1:]),
        ]
        self.fields["parent"].queryset = checkpoints.filter(whole | Q(kind=METHODS[method].makes))
        self.fields["parent"].label_from_instance = _checkpoint_label
        if METHODS[method].makes == "policy":
            judges = self.fields["reward_model"]
            judges.queryset = checkpoints.filter(kind=Checkpoint.Kind.REWARD, all_weights=False)
            judges.label_from_instance = _checkpoint_label
            judges.help_text = LEARNT_FROM if METHODS[method].samples else MEASURED_BY
        else:
            del self.fields["reward_model"]
        self._begin_with(like, parent)
        chosen = like.recipe.get("options", {}) if like and like.method == method else {}
        if preset:
            chosen = {**chosen, **PRESETS[preset].options(method)}
        for described in describe_options(method):
            name = described["name"]
            field = option_field(described, initial=chosen.get(name), with_source=True)
            self.fields[PREFIX + name] = field

    def _begin_with(self, like: TrainingRun | None, parent: Checkpoint | None) -> None:
        """What the form shows at first: the inputs of `like`, else `parent`, else the newest of each."""
        inputs = {item.role: item for item in like.inputs.all()} if like else {}
        given = {role: item.checkpoint_id or item.dataset_id for role, item in inputs.items()}
        offered = self.fields["parent"].queryset
        start = offered.filter(pk=parent.pk).first() if parent else None
        start = start or offered.filter(kind=Checkpoint.Kind.BASE).first()
        self.initial |= {
            "name": like.step if like else "",
            "seed": like.seed if like else 1,
            "dataset": given.get(RunInput.Role.DATA)
            or self.fields["dataset"].queryset.values_list("pk", flat=True).first(),
            "parent": given.get(RunInput.Role.PARENT)
            or given.get(RunInput.Role.BASE)
            or (start and start.pk),
        }
        if "reward_model" in self.fields:
            newest = None
            if METHODS[self.method].samples and start and not like:
                newest = newest_reward_model(start if start.is_whole else start.base)
            self.initial["reward_model"] = given.get(RunInput.Role.REWARD_MODEL) or (newest and newest.pk)

    def first_options(self) -> list[forms.BoundField]:
        return [self[PREFIX + name] for name in FIRST if PREFIX + name in self.fields]

    def other_options(self) -> list[forms.BoundField]:
        names = [name for name in self.fields if name.startswith(PREFIX)]
        return [self[name] for name in names if name.removeprefix(PREFIX) not in FIRST]

    @property
    def other_is_wrong(self) -> bool:
        """Whether one of the folded options has an error, so that they must be open."""
        return any(field.errors for field in self.other_options())

    @property
    def freezes(self) -> bool:
        """Whether what freezes a new dataset must be open: it is filled in, or there is no other."""
        is_only = not self.fields["dataset"].queryset.exists()
        return is_only or self.leaves_out or bool(self["rounds"].errors or self["rounds"].value())

    @property
    def leaves_out(self) -> bool:
        return any(self[name].errors or self[name].value() for name in ("without", "guideline_from"))

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if (
            not cleaned.get("dataset")
            and not cleaned.get("rounds")
            and not {"dataset", "rounds"} & set(self.errors)
        ):
            self.add_error("dataset", "Choose a dataset, or tick rounds to freeze one from.")
        if cleaned.get("dataset"):
            for name in ("without", "guideline_from"):
                if cleaned.get(name):
                    self.add_error(
                        name, "Nothing can be left out of a dataset that is frozen. Choose none above."
                    )
        return cleaned

    def options(self) -> dict[str, Any]:
        """Those that were filled in; what was left empty is the recipe's default."""
        given = {
            name.removeprefix(PREFIX): value
            for name, value in self.cleaned_data.items()
            if name.startswith(PREFIX)
        }
        return {name: value for name, value in given.items() if value is not None and value != ""}

    def draft_fields(self) -> dict[str, Any]:
        """What `open_draft` and `change_draft` take beside the dataset."""
        given, options = self.cleaned_data, self.options()
        judge = given.get("reward_model")
        # A reward model that the chosen reward does not read is no mistake: the field is there for the others.
        uses_it = not METHODS[self.method].samples or needs_reward_model(
            self.method, {"reward": "reward_model", **options}
        )
        return {
            "name": given["name"],
            "parent": given["parent"],
            "reward_model": judge if uses_it else None,
            "options": options,
            "seed": given["seed"],
        }

    def data_fields(self) -> dict[str, Any]:
        """What `chosen_dataset` takes: a dataset counts more than rounds that are ticked beside it."""
        given = self.cleaned_data
        if given["dataset"]:
            return {"dataset": given["dataset"], "rounds": []}
        filters = Filters([user.pk for user in given["without"]], given["guideline_from"])
        return {"dataset": None, "rounds": list(given["rounds"]), "filters": filters}


def _dataset_label(dataset: Any) -> str:
    numbers = ", ".join(str(number) for number in sorted(round.number for round in dataset.rounds.all()))
    source = dataset.imported_from or f"round {numbers}"
    counts = dataset.counts
    filtered = ", filtered" if dataset.filters else ""
    simulated = ", simulated" if dataset.sources == ["rehearsal"] else ""
    answers = counts.get("train_demonstrations", 0)
    written = f", {answers:,} train answers" if answers else ""
    return (
        f"{dataset.digest[:12]}, {source}: {counts.get('train_pairs', 0):,} train pairs, "
        f"{counts.get('held_out_pairs', 0):,} held-out{written}{filtered}{simulated}, {dataset.created_at:%-d %b %Y}"
    )


def _round_label(round: Round) -> str:
    return f"{round.number}. {round.name}" + (" (simulated)" if round.is_rehearsal else "")


def _checkpoint_label(checkpoint: Checkpoint) -> str:
    on = f" on {checkpoint.base.name}" if checkpoint.base else ""
    return f"{checkpoint.name} ({checkpoint.get_kind_display().lower()}{on})"
