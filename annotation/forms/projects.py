"""Forms of projects."""

from django import forms


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
