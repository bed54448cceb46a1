"""Forms of the review page."""

from django import forms


class NoteForm(forms.Form):
    """What a reviewer says of a decision."""

    note = forms.CharField(required=False, max_length=2000)
