"""Forms of the guideline."""

from typing import Any

from django import forms


class GuidelineForm(forms.Form):
    """The next version of the guideline, and the version it was written on top of."""

    based_on = forms.IntegerField(min_value=0, widget=forms.HiddenInput)
    text = forms.CharField(
        label="Text",
        strip=False,
        required=False,  # the service says what an empty one lacks
        widget=forms.Textarea(attrs={"rows": 24, "data-preview": "preview", "dir": "auto"}),
        help_text="Markdown: # heading, **bold**, - list, > quote, `code`.",
    )


class VersionsForm(forms.Form):
    """Which version is wanted, and since which one the changes are: both may be left out."""

    version = forms.TypedChoiceField(label="Version", required=False, coerce=int, empty_value=None)
    since = forms.TypedChoiceField(label="Changes since", required=False, coerce=int, empty_value=None)

    def __init__(self, *args: Any, versions: list[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        numbers = [(version, str(version)) for version in versions]
        self.fields["version"].choices = [("", "newest"), *numbers]
        self.fields["since"].choices = [("", "don't show"), *numbers]
