"""Forms of the account pages."""

from django import forms
from django.contrib.auth.forms import AuthenticationForm


class SignInForm(AuthenticationForm):
    """Django's own, with an error that helps."""

    error_messages = {
        "invalid_login": "The username or the password is not right. Both tell capital from small letters.",
        "inactive": "This account is switched off. Ask an admin.",
    }


class TokenForm(forms.Form):
    """The name of a new API token."""

    name = forms.CharField(
        label="Name of the token",
        max_length=80,
        help_text="What will use it, so that you know which one to revoke: “import script on my laptop”.",
    )
