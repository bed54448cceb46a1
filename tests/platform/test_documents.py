"""The documents say what is so."""

import re

from tests.environment import ROOT
from training.recipes.methods_page import page
from training.recipes.options_from_samples import PpoOptions


def test_every_variable_that_settings_read_is_listed_and_no_other() -> None:
    settings = (ROOT / "platform/rankloop/settings.py").read_text()
    read = set(re.findall(r'env(?:\.\w+)?\(\s*"([A-Z_]+)"', settings))
    for file in [ROOT / "deploy/dev.py", *(ROOT / "deploy/local").glob("*.py")]:
        read |= set(re.findall(r'["\'](RANKLOOP_[A-Z_]+)["\']', file.read_text()))
    listed = set(
        re.findall(r"^\| `([A-Z_]+)`", (ROOT / "deploy/SETTINGS.md").read_text(), flags=re.MULTILINE)
    )
    assert listed == read


def test_the_readme_gives_the_two_commands_and_its_picture_is_there() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "python3 deploy/dev.py demo" in readme
    assert "python3 deploy/dev.py test" in readme
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme):
        assert (ROOT / picture).is_file(), picture


def test_every_path_in_the_readme_tree_exists() -> None:
    tree = (ROOT / "README.md").read_text().split("## The tree")[1]
    parent = ""
    for indent, name in re.findall(r"^    ( *)(\S+) {2,}", tree, flags=re.MULTILINE):
        path = f"{parent}{name}" if indent else name
        assert (ROOT / path).exists(), path
        if not indent:
            parent = name


def test_every_benchmark_named_in_the_readme_is_there() -> None:
    named = re.search(r"a benchmark: ([^;]+);", (ROOT / "README.md").read_text())
    assert named is not None
    for name in re.split(r", | or ", named[1]):
        assert (ROOT / f"tests/benchmarks/bench_{name}.py").is_file(), name


def test_the_page_of_ppo_speaks_of_each_of_its_own_options_and_names_each_paper_it_cites() -> None:
    details = (ROOT / "training/recipes/ppo.md").read_text()
    for name in PpoOptions.__annotations__:
        assert f"`{name}" in details, name
    text, papers = re.sub(r"\s+", " ", details).split("## Papers")
    cited = set(re.findall(r"([A-Z][a-z]+)(?: et al\.| and [A-Z][a-z]+)? ((?:19|20)\d\d)", text))
    assert ("Huang", "2024") in cited
    assert not {f"{who} {year}" for who, year in cited if not re.search(rf"{who}[^·]* {year}", papers)}


def test_the_page_of_methods_is_what_the_dataclasses_say() -> None:
    written = (ROOT / "deploy/METHODS.md").read_text()
    assert written == page(), "python -m training.recipes.methods_page > deploy/METHODS.md"
