"""Forms of the account pages."""

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm, UserCreationForm

from rankloop.accounts.models import User


class SignInForm(AuthenticationForm):
    """Django's own, with an error that helps."""

    error_messages = {
        "invalid_login": "The username or the password is not right. Both tell capital from small letters.",
        "inactive": "This account is switched off. Ask an admin.",
    }


class NewAccountForm(UserCreationForm):
    """A person's first username and password, checked as Django does. It is saved by `services.open_account`."""

    class Meta(UserCreationForm.Meta):
        model = User
        help_texts = {"username": "What others in your projects see. Letters, digits and @ . + - _ only."}
        error_messages = {"username": {"unique": "This username is taken. Choose another."}}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].widget.attrs.pop("autofocus")
        self.fields["password1"].help_text = "At least 10 characters. Three or four words make a good one."
        self.fields["password2"].label = "Password again"
        self.fields["password2"].help_text = ""

    @property
    def is_name_taken(self) -> bool:
        """Whether the username is somebody's: what guessing names would look like."""
        return self.has_error("username", "unique")


class TokenForm(forms.Form):
    """The name of a new API token."""

    name = forms.CharField(
        label="Name of the token",
        max_length=80,
        help_text="What will use it, so that you know which one to revoke: “import script on my laptop”.",
    )
