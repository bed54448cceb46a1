"""Forms of prompts."""

from typing import Any

from django import forms

from annotation.models import Prompt


class PromptForm(forms.Form):
    """One prompt written by hand."""

    system = forms.CharField(
        label="System prompt",
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Who the model should be and how it should answer. Most prompts need none.",
    )
    user = forms.CharField(
        label="Message",
        widget=forms.Textarea(attrs={"rows": 7}),
        help_text="What a person asks. The completions that are ranked answer this.",
    )
    tags = forms.CharField(
        label="Tags", required=False, help_text="Separated by commas, such as: support, refunds."
    )

    def clean_tags(self) -> list[str]:
        tags = [tag.strip() for tag in self.cleaned_data["tags"].split(",") if tag.strip()]
        if any(len(tag) > 60 for tag in tags):
            raise forms.ValidationError("A tag has more than 60 characters. Use a word or two.")
        return tags

    def messages(self) -> list[dict[str, str]]:
        """The conversation as it is stored."""
        system, user = self.cleaned_data["system"], self.cleaned_data["user"]
        before = [{"role": "system", "content": system}] if system else []
        return [*before, {"role": "user", "content": user}]


class PromptFilter(forms.Form):
    """What the list of prompts is narrowed to; every part may be left out."""

    q = forms.CharField(label="Text", required=False, max_length=200)
    split = forms.ChoiceField(label="Split", required=False, choices=[("", "Both"), *Prompt.Split.choices])
    tag = forms.ChoiceField(label="Tag", required=False)

    def __init__(self, *args: Any, tags: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["tag"].choices = [("", "Any"), *((tag, tag) for tag in tags)]
