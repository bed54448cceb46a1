"""Rewards that can be checked without a model."""

import pytest

from training.recipes.options import parse_options
from training.recipes.rewards import check_of
from training.recipes.run_dir import RecipeError


def check(**options):
    return check_of(parse_options("ppo", options))


def test_json_counts_whole_when_it_satisfies_the_schema_and_half_when_it_is_any():
    schema = '{"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}'
    reward = check(reward="valid_json", json_schema=schema)
    assert reward('{"name": "Ada"}') == 1.0
    assert reward('{"name": 3}') == 0.5
    assert reward("[1, 2]") == 0.5
    assert reward("7") == reward('Sure! {"name": "Ada"}') == reward("") == reward("[" * 100_000) == 0.0
    assert check(reward="valid_json")("[1]") == 1.0
    assert check(reward="valid_json")('{"a": NaN}') == check(reward="valid_json")("[-Infinity]") == 0.0


def test_a_schema_may_lead_back_to_itself_where_the_json_ends_it():
    reward = check(reward="valid_json", json_schema='{"properties": {"a": {"$ref": "#"}}, "required": ["a"]}')
    assert (reward('{"a": {"a": 7}}'), reward('{"a": {}}')) == (1.0, 0.5)
    endless = check(reward="valid_json", json_schema='{"properties": {"a": {"$ref": "#/properties/a"}}}')
    with pytest.raises(RecipeError, match="without end"):
        endless('{"a": 1}')


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", "json_schema is not JSON"),
        ('{"type": "objekt"}', "no JSON schema"),
        ('{"pattern": "("}', "no JSON schema"),
        ('{"properties": {"a": {"$ref": "#/$defs/b"}}}', r"refers to '#/\$defs/b', which is not in it"),
        ('{"$ref": "#"}', "refers to itself without end"),
        ('{"$ref": "https://example.org/other.json"}', r"refers to 'https://example.org/other.json'"),
    ],
)
def test_a_schema_that_is_none_is_refused(schema, said):
    with pytest.raises(RecipeError, match=said):
        check(reward="valid_json", json_schema=schema)


def test_required_words_count_by_their_share_whatever_their_case():
    reward = check(reward="required_words", required_words="tea, Milk ,")
    assert reward("TEA with milk") == 1.0
    assert reward("tea") == 0.5
    assert reward("water") == 0.0
    assert reward("a steam engine for milk") == 0.5  # a word within another does not count
    assert check(reward="required_words", required_words="art, c++, !")("Fine art in C++!") == 1.0
    assert check(reward="required_words", required_words="猫, ชา")("我的猫睡了 ดื่มชาร้อน") == 1.0
    with pytest.raises(RecipeError, match="required_words names no word"):
        check(reward="required_words", required_words=" , ")


def test_a_length_is_best_at_its_target_and_worth_nothing_at_twice_that():
    reward = check(reward="length", target_words=4)
    assert [reward("word " * n) for n in (0, 2, 4, 6, 8, 20)] == [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]


def test_a_learned_reward_is_none_of_these():
    assert check(reward="reward_model") is None
