"""Forms of projects."""

from typing import Any

from django import forms

from annotation.models import Project
from annotation.services.projects import SETTINGS


class ProjectForm(forms.Form):
    """A new project."""

    name = forms.CharField(
        label="Name", max_length=120, help_text="What people see, such as “Support answers”."
    )
    slug = forms.SlugField(
        label="Address",
        max_length=60,
        help_text="Small letters, digits and hyphens. It becomes part of every address and can't be changed.",
    )

    def clean_slug(self) -> str:
        return self.cleaned_data["slug"].lower()


class LinesField(forms.CharField):
    """A list of texts, written one a line."""

    widget = forms.Textarea

    def __init__(self, *, base_field: Any = None, max_length: Any = None, **kwargs: Any) -> None:
        # The model's limits are on entries and their number, not on the text as a whole: the service tells them.
        super().__init__(**kwargs)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:  # type: ignore[override]
        return super().clean(value).splitlines()


# The settings in the order and under the headings of the page.
SECTIONS = (
    ("The project", "What people see of it.", ("name", "description")),
    (
        "Comparisons",
        "What a new round begins with; each round may differ.",
        ("overlap", "completions_per_comparison", "max_prompt_tokens"),
    ),
    (
        "What annotators say",
        "Beside their ranking, on every comparison.",
        ("strength_levels", "flags", "aspects"),
    ),
    ("Time", "How long a comparison stays theirs.", ("lease_minutes", "revise_minutes")),
    (
        "Care and blindness",
        "What nobody should come upon unasked, and what would tell who wrote a completion.",
        ("blur_sensitive", "sensitive_categories", "leak_phrases"),
    ),
)
# What a setting's default is good for, told below what the setting is.
_GOOD_FOR = {
    "overlap": "2 is enough to measure how far annotators agree; 3 settles most disputes, at half as much work again.",
    "completions_per_comparison": "4 give six pairs to learn from, and still fit on a page.",
    "max_prompt_tokens": "512 leave a small model room to answer.",
    "strength_levels": "Three are told apart at no extra keystroke.",
    "flags": "The five to begin with name what reviewers look for first.",
    "aspects": "It is empty to begin with: each aspect takes a keystroke for every completion.",
    "lease_minutes": "15 are enough for long answers. It is renewed while somebody is at work.",
    "revise_minutes": "30 let people correct what they notice a little later, before anything is trained on it.",
    "blur_sensitive": "Leave it on unless all prompts are alike and everybody knows what is coming.",
    "sensitive_categories": "They are matched with the prompts' tags, letter by letter.",
    "leak_phrases": "The usual names are there to begin with. Ordinary words would mask ordinary answers.",
}
_LABELS = {
    "max_prompt_tokens": "Longest prompt (tokens)",
    "strength_levels": "Strength of a preference",
    "lease_minutes": "Lease (minutes)",
    "revise_minutes": "Time to revise (minutes)",
    "blur_sensitive": "Blur sensitive prompts",
}
_HELP = {
    "name": "What people see in lists and at the top of every page.",
    "description": "A sentence or two for people who are new: what the prompts are about and what will be trained.",
}


class SettingsForm(forms.Form):
    """A project's settings, drawn from the model's fields. The service checks them; this tells lines from a text."""

    def __init__(self, data: Any = None, *, project: Project) -> None:
        super().__init__(data, initial=forms.model_to_dict(project, SETTINGS))
        lists = ("flags", "aspects", "sensitive_categories", "leak_phrases")
        self.fields.update(
            forms.fields_for_model(
                Project,
                SETTINGS,
                labels=_LABELS,
                widgets={"description": forms.Textarea(attrs={"rows": 2})},
                field_classes=dict.fromkeys(lists, LinesField),
            )
        )
        for name, field in self.fields.items():
            field.help_text = " ".join(
                filter(None, [field.help_text or _HELP.get(name), _GOOD_FOR.get(name)])
            )
            if name in lists:
                field.widget.attrs["rows"] = 6

    def sections(self) -> list[tuple[str, str, list[forms.BoundField]]]:
        """Heading, lead and fields of each part of the page."""
        return [(title, lead, [self[name] for name in names]) for title, lead, names in SECTIONS]
