"""Forms of the training pages."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from django import forms

from annotation.models import Contestant, Project, Prompt, Round
from rankloop.errors import Conflict, Refused
from rankloop.parsers import MOST_IMPORTED
from training.models import WorkStatus
from training.recipes.options import METHODS, describe_options

# The methods that learn from a ranking, with the few options of each that the form asks for; the others keep the
# recipe's defaults. Those that sample learn from the reward model of the same round.
ASKED = {
    "reward": ("steps", "learning_rate"),
    "dpo": ("steps", "learning_rate", "beta"),
    "kto": ("steps", "learning_rate", "beta"),
    "ppo": ("steps", "learning_rate", "kl_target"),
    "rloo": ("steps", "learning_rate", "beta"),
    "grpo": ("steps", "learning_rate", "beta"),
}
CHOSEN = ("reward", "dpo", "judged")  # until the researcher chooses otherwise

# Fields that every round has, and those of a demonstration round alone; the others are those of a ranking round.
BOTH = ("launch_key", "kind", "name", "train_prompts", "priority", "deadline")
DEMONSTRATIONS = ("answers", "held_out_answered")


def option_field(
    described: Mapping[str, Any], *, initial: Any = None, with_source: bool = False
) -> forms.Field:
    """A field for one option of a recipe, with its own default, bounds and help; left empty it is the default.

    `described` is from `describe_options`.
    """
    help_text = described["help"]
    if with_source:
        default = (
            f"{described['default']:g}" if described["type"] == "float" else described["default"] or "empty"
        )
        help_text += f" Default: {default} ({described['source']})."
    common = {
        "label": _label(described["name"]),
        "initial": described["default"] if initial is None else initial,
        "required": False,
        "help_text": help_text,
    }
    if described["choices"]:
        return forms.ChoiceField(choices=[(choice, choice) for choice in described["choices"]], **common)
    if described["type"] == "str":
        widget = forms.Textarea(attrs={"rows": 2}) if described["high"] > 5000 else forms.TextInput()
        return forms.CharField(max_length=int(described["high"]), strip=False, widget=widget, **common)
    kind = forms.IntegerField if described["type"] == "int" else forms.FloatField
    widget = forms.NumberInput(attrs={"step": "1" if described["type"] == "int" else "any"})
    return kind(min_value=described["low"], max_value=described["high"], widget=widget, **common)


def _label(name: str) -> str:
    words = [word.upper() if word in ("kl", "json", "eos", "gae") else word for word in name.split("_")]
    return " ".join(["LoRA" if words[0] == "lora" else words[0][:1].upper() + words[0][1:], *words[1:]])


def _option_field(method: str, name: str) -> forms.Field:
    return option_field(next(option for option in describe_options(method) if option["name"] == name))


class KeyedForm(forms.Form):
    """A form whose hidden launch key makes a double submit one round, or one run."""

    launch_key = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)

    def refuse(self, error: Refused) -> None:
        """Show why a launch was refused. A key that stands for something else by now gives way to a fresh one."""
        said = str(error)
        if isinstance(error, Conflict):
            self.data = self.data.copy()
            self.data["launch_key"] = str(uuid.uuid4())
            said += " This form has a new launch key now: submit it again."
        self.add_error(None, said)


class LaunchForm(KeyedForm):
    """Everything a round needs.

    The page shows only what goes with the chosen `kind`; what it hides is sent all the same, and left out here.
    """

    kind = forms.ChoiceField(
        label="What annotators do",
        choices=[
            (Round.Kind.RANKING, "Rank completions"),
            (Round.Kind.DEMONSTRATION, "Write demonstrations"),
        ],
        widget=forms.RadioSelect,
    )
    name = forms.CharField(
        label="Name",
        max_length=120,
        help_text="What you will look for in lists, such as “Shorter answers”. Annotators see it too: "
        "name no contestant.",
    )
    contestants = forms.ModelMultipleChoiceField(
        label="Contestants",
        queryset=Contestant.objects.none(),
        required=False,  # by a demonstration round: see clean()
        widget=forms.CheckboxSelectMultiple,
        help_text="Who writes the completions. Annotators never learn who wrote what.",
    )
    train_prompts = forms.IntegerField(
        label="Train prompts",
        min_value=0,
        max_value=1_000_000,
        help_text="At most this many; what training learns from.",
    )
    held_out_prompts = forms.IntegerField(
        label="Held-out prompts",
        min_value=0,
        max_value=1_000_000,
        help_text="At most this many; never trained on. Win rates come from these alone.",
    )
    samples_per_contestant = forms.IntegerField(
        label="Samples per contestant",
        min_value=1,
        max_value=8,
        help_text="Completions each contestant writes to each prompt.",
    )
    completions_per_comparison = forms.IntegerField(
        label="Ranked together",
        min_value=2,
        max_value=8,
        help_text="How many are ranked together, 2 to 8.",
    )
    overlap = forms.IntegerField(
        label="Overlap", min_value=1, max_value=20, help_text="How many annotators judge each comparison."
    )
    audience = forms.ChoiceField(
        label="Audience",
        choices=Round.Audience.choices,
        widget=forms.RadioSelect,
        help_text="Simulated annotators rank rehearsals, and never anything else.",
    )
    priority = forms.IntegerField(
        label="Priority",
        min_value=-1000,
        max_value=1000,
        help_text="The higher one is ranked first while several rounds are open.",
    )
    deadline = forms.DateTimeField(
        label="Deadline",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        input_formats=["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"],
        help_text="Ranking ends then at the latest (UTC). Without one it ends when all is ranked, or by a button.",
    )
    answers = forms.IntegerField(
        label="Answers per prompt",
        min_value=1,
        max_value=20,
        help_text="How many annotators write one to each prompt.",
    )
    held_out_answered = forms.IntegerField(
        label="Held-out prompts",
        min_value=0,
        max_value=1_000_000,
        help_text="At most this many. Nothing ever learns from answers to these.",
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        self.project = project
        writers = project.contestants.filter(checkpoints__isnull=False).distinct().order_by("-pk")
        prompts = {split: project.prompts.filter(split=split).count() for split in Prompt.Split.values}
        standard = Round(
            overlap=project.overlap, completions_per_comparison=project.completions_per_comparison
        )
        initial: dict[str, Any] = {
            "kind": Round.Kind.RANKING if writers else Round.Kind.DEMONSTRATION,
            "answers": 1,
            "held_out_answered": 0,
            "contestants": list(writers[:2]),
            "audience": Round.Audience.PEOPLE,
            "train_prompts": min(standard.train_prompts, prompts[Prompt.Split.TRAIN]),
            "held_out_prompts": min(standard.held_out_prompts, prompts[Prompt.Split.HELD_OUT]),
            **dict.fromkeys(CHOSEN, True),
        }
        for name in ("overlap", "completions_per_comparison", "samples_per_contestant", "priority"):
            initial[name] = getattr(standard, name)
        super().__init__(*args, initial={**initial, **kwargs.pop("initial", {})}, **kwargs)
        self.fields["contestants"].queryset = writers
        for method, names in ASKED.items():
            self.fields[method] = forms.BooleanField(
                label=METHODS[method].title, required=False, help_text=METHODS[method].line
            )
            for name in names:
                self.fields[f"{method}_{name}"] = _option_field(method, name)
        self.fields["judged"] = forms.BooleanField(
            label="Measure DPO and KTO by this round's reward model",
            required=False,
            help_text="Beside their accuracy: reward, KL and win rate of what they write, and best-of-4 of their "
            "parent. Takes six completions of each held-out prompt.",
        )

    def method_fields(self) -> list[dict[str, Any]]:
        """The methods with their checkboxes and options, for the template."""
        return [
            {"switch": self[method], "options": [self[f"{method}_{name}"] for name in names]}
            for method, names in ASKED.items()
        ]

    def clean_deadline(self) -> Any:
        deadline = self.cleaned_data["deadline"]
        return deadline.astimezone(UTC) if deadline else None

    @property
    def is_demonstration(self) -> bool:
        return self.cleaned_data.get("kind") == Round.Kind.DEMONSTRATION

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        for name in self.fields:
            if name not in BOTH and (name in DEMONSTRATIONS) != self.is_demonstration:
                self.errors.pop(name, None)  # hidden, so nobody could mend it
        if self.is_demonstration:
            return cleaned
        if "contestants" in cleaned and not cleaned["contestants"]:
            self.add_error("contestants", "Choose at least one contestant.")
        if cleaned.get("train_prompts") == 0 and any(cleaned.get(method) for method in ASKED):
            self.add_error(
                "train_prompts", "Training needs train prompts. Ask for some, or train nothing in this round."
            )
        return cleaned

    def plan(self) -> list[dict[str, Any]]:
        """The training plan as `checked_plan` takes it."""
        given = self.cleaned_data
        if self.is_demonstration:
            return []
        steps: list[dict[str, Any]] = [
            {
                "step": method,
                "method": method,
                "options": {
                    name: given[f"{method}_{name}"]
                    for name in names
                    if given.get(f"{method}_{name}") is not None
                },
            }
            for method, names in ASKED.items()
            if given[method]
        ]
        if given["judged"] and given["reward"]:
            for step in steps:
                method = METHODS[step["method"]]
                if method.makes == "policy" and not method.samples:
                    step["reward_model"] = "reward"
        return steps

    def round_fields(self) -> dict[str, Any]:
        """What `open_round` takes beside project, user and plan."""
        given = self.cleaned_data
        both = {name: given[name] for name in BOTH}
        if self.is_demonstration:
            demonstrations = {"overlap": given["answers"], "held_out_prompts": given["held_out_answered"]}
            return both | demonstrations | {"contestants": []}
        named = (
            "held_out_prompts", "samples_per_contestant", "completions_per_comparison", "overlap", "audience",
        )  # fmt: skip
        return both | {name: given[name] for name in named} | {"contestants": list(given["contestants"])}


class CompareForm(forms.Form):
    """Which two versions to look at."""

    a = forms.ModelChoiceField(label="Version A", queryset=Contestant.objects.none(), empty_label=None)
    b = forms.ModelChoiceField(label="Version B", queryset=Contestant.objects.none(), empty_label=None)
    split = forms.ChoiceField(
        label="Prompts shown", required=False, choices=[("held_out", "held-out"), ("train", "train")]
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("a", "b"):
            self.fields[name].queryset = project.contestants.order_by("-pk")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("a") and cleaned.get("a") == cleaned.get("b"):
            self.add_error("b", "Choose two different versions.")
        return cleaned


class SamplesForm(forms.Form):
    """Which two evaluations of a run to look at, and which prompts first."""

    before = forms.TypedChoiceField(label="After step", coerce=int)
    after = forms.TypedChoiceField(label="and after step", coerce=int)
    order = forms.ChoiceField(
        label="First",
        required=False,
        choices=[("", "in their order"), ("gained", "what gained most"), ("lost", "what lost most")],
    )

    def __init__(self, *args: Any, steps: Sequence[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("before", "after"):
            self.fields[name].choices = [(step, str(step)) for step in steps]


class ImportForm(forms.Form):
    """A file of pairs or answers."""

    file = forms.FileField(
        label="JSONL file",
        help_text="At most 50 MB, UTF-8, one JSON object a line.",
        widget=forms.ClearableFileInput(attrs={"accept": ".jsonl,.ndjson,.json"}),
    )

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > MOST_IMPORTED:
            raise forms.ValidationError("The file is larger than 50 MB. Import it in parts.")
        return file


class WithdrawForm(forms.Form):
    """Taking a judgment back. The key makes a form that is sent twice one withdrawal."""

    submission_key = forms.UUIDField(widget=forms.HiddenInput)
    reason = forms.CharField(
        label="Why",
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 2, "dir": "auto"}),
        help_text="A word helps those who look into it. It is kept with the judgment.",
    )


class RunFilter(forms.Form):
    """What the list of runs is narrowed to; every part may be left out."""

    method = forms.ChoiceField(
        label="Method",
        required=False,
        choices=[("", "Any"), *((name, each.title) for name, each in METHODS.items())],
    )
    status = forms.ChoiceField(label="State", required=False, choices=[("", "Any"), *WorkStatus.choices])
    round = forms.ModelChoiceField(label="Round", required=False, queryset=None, empty_label="Any")

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["round"].queryset = (
            project.rounds.filter(runs__isnull=False).distinct().order_by("-number")
        )
        self.fields["round"].to_field_name = "number"
