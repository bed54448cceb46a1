"""Settings: one file, driven by the environment. Every variable read here is listed in deploy/SETTINGS.md.

Without RANKLOOP_LOCAL=1 (set by deploy/dev.py alone) the settings are those of production, and they refuse to load
with a default, short or missing secret key or with DEBUG on.
"""

import os
from pathlib import Path

import environ
import yaml
from django.core.exceptions import ImproperlyConfigured

# Statistics run in web and worker processes: one BLAS thread each, or they fight over the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[2]
env = environ.Env()

HOME = Path(env.str("RANKLOOP_HOME", default=str(ROOT / "var"))).resolve()
LOCAL = env.bool("RANKLOOP_LOCAL", default=False)
DEBUG = env.bool("DEBUG", default=False)

SECRET_KEY = env.str("SECRET_KEY", default="")
if len(SECRET_KEY) < 32 or len(set(SECRET_KEY)) < 5 or SECRET_KEY.startswith("django-insecure"):
    raise ImproperlyConfigured(
        "SECRET_KEY must be a random string of at least 32 characters. Make one with: "
        "python -c 'import secrets; print(secrets.token_urlsafe(48))'. The local stack (deploy/dev.py) makes its own."
    )
if DEBUG and not LOCAL:
    raise ImproperlyConfigured("DEBUG is on. Unset it: in production it shows secrets to visitors.")

ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"] if LOCAL else [])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "django_htmx",
    "rankloop.accounts",
    "rankloop.audit",
    "annotation",
    "training",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    # Below whitenoise, whose files are compressed already; above all that writes bodies. BREACH guesses a secret by the
    # length of a compressed page: Django masks the CSRF token anew in each answer and pads each with up to 100 bytes.
    "django.middleware.gzip.GZipMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "rankloop.urls"
WSGI_APPLICATION = "rankloop.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

# PostgreSQL only: claims rely on SKIP LOCKED. The local stack sets DATABASE_URL to its embedded server.
DATABASES = {"default": env.db("DATABASE_URL", default="postgres:///rankloop")}
if DATABASES["default"]["ENGINE"] != "django.db.backends.postgresql":
    raise ImproperlyConfigured(
        "DATABASE_URL must name a PostgreSQL database: postgres://user:password@host/name"
    )
DATABASES["default"].update(
    CONN_MAX_AGE=env.int("RANKLOOP_CONN_MAX_AGE", default=600),
    CONN_HEALTH_CHECKS=True,
    OPTIONS={
        **DATABASES["default"].get("OPTIONS", {}),
        "connect_timeout": 5,  # a wrong address should say so in seconds, not hang
        # Planning the claim costs more than running it: hot statements are planned once a connection. Behind a
        # pooler that can't keep prepared statements set RANKLOOP_PREPARE_THRESHOLD=0.
        "server_side_binding": True,
        "prepare_threshold": env.int("RANKLOOP_PREPARE_THRESHOLD", default=5) or None,
    },
)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "sign-in"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_NAME = env.str("RANKLOOP_SESSION_COOKIE", default="rankloop_session")
CSRF_COOKIE_SAMESITE = "Lax"

# Behind TLS everywhere but on the local stack's loopback.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not LOCAL
SECURE_SSL_REDIRECT = env.bool("RANKLOOP_SSL_REDIRECT", default=not LOCAL)
SECURE_HSTS_SECONDS = 0 if LOCAL else 31_536_000
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("RANKLOOP_BEHIND_PROXY", False) else None
)
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        "rankloop.accounts.authentication.TokenAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rankloop.parsers.JSONBody"],
    "DEFAULT_SCHEMA_CLASS": "rankloop.openapi.schema.Schema",
    "EXCEPTION_HANDLER": "rankloop.api.exception_handler",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}

# The description of the API: /api/schema.json, and for reading /api/docs.
SPECTACULAR_SETTINGS = {
    "TITLE": "Rankloop",
    "VERSION": "1",
    "DESCRIPTION": (
        "Everything a page does. Sign in with a token of yours, `Authorization: Bearer rl_...`, made on your account "
        "page; it may do what you may do. In a browser your session works too, with the CSRF token in the header "
        "`X-CSRFToken` of every request that changes something. What is not open to you is answered with 404, as if "
        'it were missing. A refusal is `{"detail": "..."}` and says what to do; where a field is wrong, '
        '`{"detail": "...", "fields": {"name": ["..."]}}`. Lists come newest first in pages, '
        '`{"next", "previous", "results"}`: follow `next` until it is null.'
    ),
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": r"/api/(v1(/projects/\{slug\}(?=/))?)?",
    "POSTPROCESSING_HOOKS": ["rankloop.openapi.schema.add_refusals"],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "SORT_OPERATION_PARAMETERS": False,
}

# Celery's filesystem broker needs nothing installed; RabbitMQ or Redis come in by CELERY_BROKER_URL.
BROKER_FOLDER = HOME / "broker"
CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default="filesystem://")
if CELERY_BROKER_URL.startswith("filesystem"):
    CELERY_BROKER_TRANSPORT = "rankloop.file_broker.Transport"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(BROKER_FOLDER / "messages"),
        "data_folder_out": str(BROKER_FOLDER / "messages"),
        "control_folder": str(BROKER_FOLDER / "control"),
        "polling_interval": 0.1,
    }
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "short"
CELERY_TASK_ROUTES = {
    "training.tasks.run_generation": {"queue": "generation"},
    "training.tasks.run_training": {"queue": "training"},
}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULE = {
    "advance rounds": {"task": "training.tasks.advance_rounds", "schedule": 2.0, "options": {"expires": 10}},
    "return expired leases": {
        "task": "annotation.tasks.expire_leases",
        "schedule": 15.0,
        "options": {"expires": 30},
    },
    "return lost work": {
        "task": "training.tasks.sweep_lost_work",
        "schedule": 5.0,
        "options": {"expires": 20},
    },
}

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False

STATIC_URL = "/static/"
STATIC_ROOT = HOME / "static"
# Our own only: packages bring files that no page of ours uses.
STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
STATICFILES_DIRS = [Path(__file__).parent / "static", ROOT / "annotation/static", ROOT / "training/static"]
# collectstatic (the local stack runs it at each start) gives names by content, for ever cacheable, and compresses.
WHITENOISE_AUTOREFRESH = False
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "rankloop.storage.HashedStaticFiles"},
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env.str("RANKLOOP_LOG_LEVEL", default="INFO")},
}

# --- Rankloop's own ---
ARTIFACTS_URL = env.str("RANKLOOP_ARTIFACTS_URL", default=str(HOME / "artifacts"))
RUNS_FOLDER = HOME / "runs"
# Curves of every run as TensorBoard reads them: `tensorboard --logdir` on it.
TENSORBOARD_FOLDER = HOME / "tensorboard"
# An experiment tracker that is told of every run, too; its package must be installed where workers run.
TRACKER = env.str("RANKLOOP_TRACKER", default="")
if TRACKER not in ("", "trackio", "mlflow"):
    raise ImproperlyConfigured("RANKLOOP_TRACKER is trackio or mlflow; leave it unset for neither.")
# Settings of `accelerate launch` by which a worker trains: deploy/accelerate has some. Without, one process.
ACCELERATE = env.str("RANKLOOP_ACCELERATE", default="")
if ACCELERATE and not Path(ACCELERATE).is_file():
    raise ImproperlyConfigured(
        f"RANKLOOP_ACCELERATE is {ACCELERATE}, where no file is. Name one of deploy/accelerate, or leave it unset."
    )
# What those settings mean for a run: into how many processes it is divided, and whether each has a piece of the model.
try:
    _launched = (yaml.safe_load(Path(ACCELERATE).read_text()) if ACCELERATE else None) or {}
    TRAINING_PROCESSES = int(_launched.get("num_processes") or 1)
    TRAINING_IS_SHARDED = _launched.get("distributed_type") == "FSDP"
except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
    raise ImproperlyConfigured(f"RANKLOOP_ACCELERATE is {ACCELERATE}, which can't be read: {error}") from None
DEFAULT_MODEL = Path(
    env.str("RANKLOOP_DEFAULT_MODEL", default=str(HOME / "models" / "smollm2-135m-instruct"))
)
# One salt and one share per installation, so that a prompt falls on the same side in every project.
SPLIT_SALT = env.str("RANKLOOP_SPLIT_SALT", default="rankloop")
HELD_OUT_SHARE = env.float("RANKLOOP_HELD_OUT_SHARE", default=0.3)
# How many workers listen for each kind of long work: so much of it is done at a time.
TRAINING_WORKERS = env.int("RANKLOOP_TRAINING_WORKERS", default=1)
GENERATION_WORKERS = env.int("RANKLOOP_GENERATION_WORKERS", default=1)
# A worker that stops renewing its lease for this long has lost its work.
WORK_LEASE_SECONDS = env.int("RANKLOOP_WORK_LEASE_SECONDS", default=30)
MAX_ATTEMPTS = env.int("RANKLOOP_MAX_ATTEMPTS", default=3)
# What is asked to stop ends its step and saves a checkpoint first; after this long it is killed.
STOP_SECONDS = env.float("RANKLOOP_STOP_SECONDS", default=300)
# Bytes that stay free on the disk of the runs, so that one that fills it can still save a checkpoint.
DISK_RESERVE = env.int("RANKLOOP_DISK_RESERVE_MB", default=500) * 1_000_000
TRAINING_THREADS = env.int("RANKLOOP_TRAINING_THREADS", default=0)
