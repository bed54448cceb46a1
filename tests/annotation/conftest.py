"""Fixtures of the annotation tests."""

import pytest


@pytest.fixture(autouse=True)
def quick_passwords(settings):
    """Hashing a password slowly, as production must, would take most of these tests' time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
