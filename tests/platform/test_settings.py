"""Settings refuse to load where they would be unsafe. Each case is a process of its own: settings load once."""

import os
import subprocess
import sys

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from tests.environment import ROOT

GOOD_KEY = "k3Yf0r-0nly-this-test-w1th-enough-of-everything"
PRODUCTION = {"SECRET_KEY": GOOD_KEY, "DATABASE_URL": "postgres://user:pass@db.example/rankloop"}
READ = """
import sys
sys.path.insert(0, "platform")
from django.core.exceptions import ImproperlyConfigured
try:
    import rankloop.settings as settings
except ImproperlyConfigured as error:
    print(error)
    sys.exit(7)
for name in sys.argv[1:]:
    print(repr(getattr(settings, name)))
"""


def load(*names: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Load the settings with nothing but these variables set, and print the named ones."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", READ, *names],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def refusal(**environment: str) -> str:
    done = load(**environment)
    assert done.returncode == 7, done.stderr or "nothing was refused"
    return done.stdout


def values(*names: str, **environment: str) -> list[str]:
    done = load(*names, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "short",
        GOOD_KEY[:31],
        "a" * 64,
        "django-insecure-0123456789abcdefghijklmnopqrstuvwxyz",
    ],
)
def test_a_missing_short_monotonous_or_default_secret_key_is_refused_with_the_way_to_make_one(key):
    environment = {name: value for name, value in PRODUCTION.items() if name != "SECRET_KEY"}
    if key is not None:
        environment["SECRET_KEY"] = key
    assert "SECRET_KEY must be a random string of at least 32 characters" in refusal(**environment)
    assert "secrets.token_urlsafe" in refusal(**environment, RANKLOOP_LOCAL="1")


def test_what_accelerate_is_told_is_known_to_the_platform_too(tmp_path):
    names = ("TRAINING_PROCESSES", "TRAINING_IS_SHARDED")
    shipped = ROOT / "deploy" / "accelerate"
    assert values(*names, **PRODUCTION) == ["1", "False"]
    assert values(*names, **PRODUCTION, RANKLOOP_ACCELERATE=str(shipped / "ddp.yaml")) == ["8", "False"]
    assert values(*names, **PRODUCTION, RANKLOOP_ACCELERATE=str(shipped / "fsdp2.yaml")) == ["8", "True"]
    assert "where no file is" in refusal(**PRODUCTION, RANKLOOP_ACCELERATE=str(tmp_path / "none.yaml"))
    (tmp_path / "torn.yaml").write_text("num_processes: [")
    assert "which can't be read" in refusal(**PRODUCTION, RANKLOOP_ACCELERATE=str(tmp_path / "torn.yaml"))


def test_only_trackers_that_there_are_can_be_named():
    assert values("TRACKER", **PRODUCTION, RANKLOOP_TRACKER="mlflow") == ["'mlflow'"]
    assert "is trackio or mlflow" in refusal(**PRODUCTION, RANKLOOP_TRACKER="wandb")


@pytest.mark.parametrize(
    "file", sorted((ROOT / "deploy" / "accelerate").glob("*.yaml")), ids=lambda f: f.name
)
def test_accelerate_takes_every_setting_of_the_files_for_it(file):
    config = load_config_from_file(str(file))
    assert config.to_dict() | yaml.safe_load(file.read_text()) == config.to_dict()


def test_debug_is_refused_in_production_and_allowed_on_the_local_stack():
    assert "DEBUG is on" in refusal(**PRODUCTION, DEBUG="1")
    assert values("DEBUG", **PRODUCTION, DEBUG="1", RANKLOOP_LOCAL="1") == ["True"]


@pytest.mark.parametrize("url", ["sqlite:///rankloop.sqlite3", "mysql://user:pass@db.example/rankloop"])
def test_a_database_that_is_not_postgresql_is_refused(url):
    said = refusal(**{**PRODUCTION, "DATABASE_URL": url})
    assert "must name a PostgreSQL database" in said
    assert "pass@db.example" not in said


def test_production_is_strict_by_default():
    names = ("DEBUG", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT", "ALLOWED_HOSTS")
    assert values(*names, **PRODUCTION) == ["False", "True", "True", "True", "[]"]
    (seconds,) = values("SECURE_HSTS_SECONDS", **PRODUCTION)
    assert int(seconds) >= 31_536_000
    (policy,) = values("CONTENT_SECURITY_POLICY", **PRODUCTION)
    assert "unsafe-inline" not in policy
    assert "'default-src': [\"'none'\"]" in policy


def test_a_proxy_is_believed_only_when_it_is_said_to_be_there():
    assert values("SECURE_PROXY_SSL_HEADER", **PRODUCTION) == ["None"]
    (header,) = values("SECURE_PROXY_SSL_HEADER", **PRODUCTION, RANKLOOP_BEHIND_PROXY="1")
    assert "HTTP_X_FORWARDED_PROTO" in header


def test_the_local_stack_serves_loopback_without_tls():
    names = ("SESSION_COOKIE_SECURE", "SECURE_SSL_REDIRECT", "ALLOWED_HOSTS")
    assert values(*names, **PRODUCTION, RANKLOOP_LOCAL="1") == [
        "False",
        "False",
        "['127.0.0.1', 'localhost', '[::1]']",
    ]
