"""Forms of members, invitations and what a member prefers."""

from typing import Any

from django import forms

from annotation.models import Invitation, Membership
from annotation.services.invitations import LIFETIMES

ROLE_HELP = {
    "annotator": "ranks completions",
    "reviewer": "ranks, and reads what others judged",
    "researcher": "ranks, reads, writes prompts and the guideline, launches rounds, compares models",
    "admin": "does all of this, and changes settings and members",
}


class RoleForm(forms.Form):
    """Another role for a member."""

    role = forms.ChoiceField(label="Role", choices=Membership.Role.choices)


class InvitationForm(forms.Form):
    """A new invitation."""

    role = forms.ChoiceField(
        label="Role",
        choices=[(role, f"{role}: {told}") for role, told in ROLE_HELP.items()],
        initial="annotator",
    )
    days = forms.TypedChoiceField(
        label="Lasts",
        coerce=int,
        choices=[(days, f"{days} day{'s' if days > 1 else ''}") for days in LIFETIMES],
        initial=7,
        help_text="After that the link is dead.",
    )
    places = forms.IntegerField(
        label="Places",
        initial=1,
        min_value=1,
        max_value=500,
        help_text=Invitation._meta.get_field("places").help_text,
    )


class OptOutForm(forms.Form):
    """What a member does not want to see."""

    categories = forms.MultipleChoiceField(
        label="Don't show me prompts tagged", required=False, widget=forms.CheckboxSelectMultiple
    )

    def __init__(self, *args: Any, categories: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["categories"].choices = [(category, category) for category in categories]
