"""The architecture, checked on the source: imports point one way, and heavy things stay where they belong.

recipes <- training -> annotation -> rankloop.accounts, rankloop.audit
views, api, tasks, commands -> services, selectors -> models, pure modules
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command

ROOT = Path(__file__).resolve().parents[1]
APPS = ("annotation", "training")
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors", "gguf"}
PLATFORM = {"django", "rest_framework", "celery", "psycopg", "rankloop", "annotation"}
# Translators, at the edge of an app: nothing below imports them.
EDGE = ("views", "api", "urls", "tasks", "forms", "management", "templatetags", "apps")


def modules(*folders: str) -> dict[str, Path]:
    """Every module below some folders by its dotted name; platform/ is on sys.path and no package."""
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[1:] if parts[0] == "platform" else parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports_of(path: Path) -> Iterator[str]:
    """The dotted name of everything a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction; write the whole name"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant))


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def offences(folders: list[str], *forbidden: str, spare: tuple[str, ...] = ()) -> list[str]:
    """`module imports name` for each import of something forbidden."""
    return [
        f"{module} imports {name}"
        for module, path in modules(*folders).items()
        if not within(module, *spare)
        for name in imports_of(path)
        if within(name, *forbidden)
    ]


CODE = ["annotation", "training", "platform/rankloop"]


def test_the_check_itself_sees_imports_wherever_they_stand(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "import torch.nn as nn\nfrom annotation import models\n"
        "def f():\n    from training.services import rounds\n    import_module('trl')\n"
    )
    assert set(imports_of(file)) == {
        *("torch.nn", "annotation", "annotation.models"),
        *("training.services", "training.services.rounds", "trl"),
    }
    found = modules(*CODE)
    assert {"annotation.services.claims", "training.recipes.dpo", "rankloop.settings", "annotation"} <= set(
        found
    )


def test_annotation_imports_nothing_of_training():
    assert offences(["annotation"], "training") == []


def test_accounts_and_audit_import_neither_app():
    assert offences(["platform/rankloop/accounts", "platform/rankloop/audit"], *APPS) == []


def test_the_site_itself_reaches_the_apps_by_their_addresses_alone():
    """Settings and urls name the apps in strings; an import would make a circle."""
    assert offences(["platform/rankloop"], *APPS) == []


def test_recipes_know_nothing_of_the_platform():
    assert offences(["training/recipes"], *PLATFORM) == []
    own = {
        name
        for path in modules("training/recipes").values()
        for name in imports_of(path)
        if within(name, "training")
    }
    assert {name for name in own if not within(name, "training.recipes")} <= {"training"}


def test_only_recipes_import_torch_and_its_kin():
    assert offences(CODE, *HEAVY, spare=("training.recipes",)) == []


def test_recipes_are_run_as_processes_and_only_their_torch_free_parts_imported():
    torch_free = (
        "options", "training_options", "options_from_samples", "run_dir", "pairs", "findings", "fitting", "presets",
        "fingerprints", "model_folders", "estimates",
    )  # fmt: skip
    allowed = {f"training.recipes.{name}" for name in torch_free}
    used = {
        name
        for module, path in modules(*CODE).items()
        if not within(module, "training.recipes")
        for name in imports_of(path)
        if within(name, "training.recipes")
    }
    assert {name for name in used if not within(name, *allowed)} <= {"training.recipes"}


def layer(module: str) -> str:
    """edge, service, selector, model or other (pure modules and what drives the services from outside)."""
    parts = module.split(".")[1:]
    first = parts[0] if parts else ""
    if first in EDGE:
        return "edge"
    return {"services": "service", "selectors": "selector", "models": "model", "migrations": "migration"}.get(
        first, "other"
    )


# What each layer must not import of either app.
FORBIDDEN = {
    "service": {"edge"},
    "selector": {"edge", "service"},
    "model": {"edge", "service", "selector"},
    "migration": {"edge", "service", "selector"},
}


@pytest.mark.parametrize("importer", FORBIDDEN)
def test_inside_an_app_imports_point_from_the_edge_to_the_facts(importer):
    seen = 0
    for app in APPS:
        for module, path in modules(app).items():
            if layer(module) != importer:
                continue
            seen += 1
            for name in imports_of(path):
                if within(name, *APPS):
                    assert layer(name) not in FORBIDDEN[importer], f"{module} imports {name}"
    assert seen


PURE = {
    "annotation.agreement",
    "annotation.differences",
    "annotation.forecast",
    "annotation.grouping",
    "annotation.importing",
    "annotation.leaks",
    "annotation.splits",
    "annotation.statistics",
    "annotation.rendering",
    "annotation.rehearsal",
    "training.preferences",
}


def test_pure_modules_import_neither_django_nor_rows():
    checked = set()
    for module, path in modules(*APPS).items():
        if within(module, *PURE):
            checked.add(module)
            for name in imports_of(path):
                assert not within(name, "django", "rest_framework", "celery", "rankloop"), f"{module}: {name}"
                assert not within(name, *APPS) or within(name, *PURE), f"{module} imports {name}"
    assert checked >= PURE


def test_the_supervisor_knows_processes_and_files_and_no_rows():
    for module in ("training.supervisor", "training.plans"):
        for name in imports_of(modules("training")[module]):
            assert not within(name, "django", "annotation", "training.models", "training.services"), name


def test_nobody_imports_the_tests_or_the_stack():
    assert offences(CODE, "tests", "deploy", "pytest") == []


# --- processes ---


def python(code: str) -> str:
    """What a fresh Python prints, started in the checkout like any of ours."""
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "rankloop.settings"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_folder_platform_is_no_package_and_hides_nothing():
    """As a package it would hide the standard library's `platform`, which half of all libraries import."""
    assert not (ROOT / "platform" / "__init__.py").exists()
    standard = Path(os.__file__).with_name("platform.py")
    # In the checkout, where `import platform` looks first (python -m pytest, python -m training.recipes...).
    assert Path(python("import platform; print(platform.__file__)")) == standard
    code = "import manage, sys; sys.argv = ['manage.py', 'version']; manage.main(); import platform; print(platform.__file__)"  # noqa: E501
    assert Path(python(code).splitlines()[-1]) == standard
    import platform

    assert Path(platform.__file__) == standard


def test_web_and_workers_start_without_torch():
    code = (
        "import sys; sys.path.insert(0, 'platform'); import django; django.setup(); "
        "from rankloop.celery import app; app.loader.import_default_modules(); "
        "import rankloop.urls, rankloop.wsgi, training.worker, training.tasks; "
        "from django.urls import get_resolver; get_resolver().url_patterns; "
        f"print(sorted(set(sys.modules) & {HEAVY!r})); print('training.tasks.run_training' in app.tasks)"
    )
    assert python(code).splitlines() == ["[]", "True"]


@pytest.mark.django_db
def test_the_migrations_are_complete():
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
