"""Recipe options: defaults, refusals that say what to do, and no torch."""

import subprocess
import sys

import pytest

from tests.recipes.runs import ROOT
from training.recipes.fitting import refuse_unfit
from training.recipes.options import METHODS, describe_options, parse_options
from training.recipes.presets import PRESETS
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
        ("dpo", {"beta": 10**310}, ("beta is 1000", "0.0001 to 10")),
        ("dpo", {"steps": 10**310}, ("steps is 1000", "out of range")),
        ("ppo", {"required_words": "a\0b"}, ("required_words is 'a\\x00b'", "NUL", "Take that out")),
        ("ppo", {"required_words": "a\ud800"}, ("required_words is 'a\\ud800'", "surrogate")),
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


@pytest.mark.parametrize(
    ("method", "given", "told"),
    [
        ("dpo", {"flipped_share": 0.1}, "flipped_share is 0.1.*Set loss to robust, or flipped_share to 0"),
        ("dpo", {"flipped_share": 0.1, "loss": "ipo"}, "loss is ipo"),
        ("kto", {"batch_size": 7, "micro_batch_size": 4}, "Set batch_size to a multiple of micro_batch_size"),
    ],
)
def test_options_that_do_not_fit_each_other_are_refused(method, given, told):
    with pytest.raises(RecipeError, match=told):
        parse_options(method, given)


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("rloo", {"batch_size": 10, "group_size": 4, "reward": "length"}, "Set batch_size to 8"),
        ("grpo", {"batch_size": 4, "group_size": 8, "reward": "length"}, "Set batch_size to 8"),
        ("ppo", {"reward": "required_words"}, "required_words names no word"),
        (
            "ppo",
            {"kl_coefficient": 0.0},
            "kl_coefficient is 0.*Set kl_coefficient above 0, or kl_target to 0",
        ),
        ("ppo", {"batch_size": 1024}, "kl_horizon is 1000, fewer than the 1024.*Set kl_horizon to 10240"),
        ("ppo", {"reward": "valid_json", "json_schema": "{"}, "json_schema is not JSON"),
        ("ppo", {"reward": "length", "max_new_tokens": 64, "max_length": 64}, "Raise max_length"),
        ("ppo", {"reward": "length", "steps": 2, "warmup_steps": 0}, "it would not learn at all"),
        ("dpo", {"flipped_share": 0.1}, "which only the robust loss takes into account"),
        ("dpo", {"steps": 4, "warmup_steps": 5}, "never reach its peak"),
    ],
)
def test_options_that_do_not_go_together_are_refused_with_the_remedy(method, options, said):
    with pytest.raises(RecipeError, match=said):
        refuse_unfit(parse_options(method, options))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_preset_is_good_for_every_method(preset, method):
    options = PRESETS[preset].options(method)
    assert {"steps", "batch_size", "micro_batch_size"} <= set(options)
    refuse_unfit(parse_options(method, options))


@pytest.mark.parametrize(
    ("batch", "together", "parts"),
    [(24, 12, 2), (24, 24, 1), (24, 100, 1), (24, 11, 3), (24, 5, 6), (24, 1, 24), (7, 4, 7), (9, 4, 3)],
)
def test_a_step_is_computed_in_the_fewest_equal_parts_that_fit(batch, together, parts):
    assert parse_options("dpo", {"batch_size": batch, "micro_batch_size": together}).parts == parts


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
