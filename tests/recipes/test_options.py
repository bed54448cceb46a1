"""Recipe options: defaults, refusals that say what to do, and no torch."""

import subprocess
import sys

import pytest

from tests.recipes.runs import ROOT
from training.recipes.options import METHODS, describe_options, parse_options
from training.recipes.run_dir import RecipeError


def test_no_options_give_the_defaults():
    assert parse_options("dpo", {}) == METHODS["dpo"].options()


def test_given_options_replace_defaults_and_whole_numbers_do_for_fractions():
    options = parse_options("dpo", {"steps": 5, "beta": 1})
    assert (options.steps, options.beta) == (5, 1.0)
    assert isinstance(options.beta, float)


@pytest.mark.parametrize(
    ("method", "given", "named"),
    [
        ("dpo", {"steps": 0}, ("steps is 0", "from 1 to 1e+06", "default")),
        ("dpo", {"beta": 11.0}, ("beta", "0.0001 to 10")),
        ("dpo", {"learning_rate": float("nan")}, ("learning_rate is nan",)),
        ("reward", {"steps": True}, ("steps is True", "a whole number")),
        ("reward", {"steps": 2.5}, ("steps is 2.5",)),
        ("reward", {"schedule": "zigzag"}, ("schedule", "linear, cosine")),
        ("reward", {"beta": 0.1}, ("no option 'beta'", "learning_rate")),
        ("sampling", {"batch_size": "32"}, ("batch_size is '32'",)),
        ("decoding", {"temperature": -0.1}, ("temperature", "0 to 5")),
    ],
)
def test_a_bad_option_is_refused_by_name_with_its_range(method, given, named):
    with pytest.raises(RecipeError) as refused:
        parse_options(method, given)
    for part in named:
        assert part in str(refused.value)


@pytest.mark.parametrize("method", METHODS)
def test_every_default_is_within_its_own_bounds_and_every_option_says_what_it_is(method):
    for described in describe_options(method):
        parse_options(method, {described["name"]: described["default"]})
        assert described["help"]
        assert described["source"]


def test_options_and_the_run_directory_are_read_without_torch():
    code = "import sys; from training.recipes import options, run_dir; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
