"""From rankings to pairs: properties, and the derivation against a slow plain twin."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from training.preferences import (
    FORMS,
    called_good_or_bad,
    count_rows,
    outcome_lines,
    pair_lines,
    prompt_lines,
    ranked_pairs,
    sft_lines,
    text_digests,
)

OUTCOMES = ["ranked", "ranked", "all_bad", "cannot_judge", "demonstrated"]


def answers() -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(
        {
            "completion": st.integers(500, 600),
            "text": st.sampled_from(["w1", "w2", "w3"]),
            "edited_from": st.one_of(st.none(), st.integers(1, 40)),
            "author": st.integers(1, 3),
        }
    )


@st.composite
def rows(draw, max_size: int = 5) -> list[dict]:
    return [
        {
            "ranking": number,
            "comparison": draw(st.integers(1, 3)),
            "prompt": number * 100,
            "split": draw(st.sampled_from(["train", "held_out"])),
            "messages": [{"role": "user", "text": "q" + str(number)}],
            "outcome": (outcome := draw(st.sampled_from(OUTCOMES))),
            "completions": [
                {
                    "completion": 10 * number + place,
                    "text": draw(st.sampled_from(["t1", "t2", "t3", "t4", "t5"])),
                    "rank": draw(st.integers(1, 4)) if outcome == "ranked" else None,
                }
                for place in range(draw(st.integers(2, 6)) if outcome != "demonstrated" else 0)
            ],
        }
        # Rows of the first format have no written answers at all.
        | draw(st.sampled_from([{}, {"edits": draw(st.lists(answers(), max_size=3))}]))
        for number in range(draw(st.integers(0, max_size)))
    ]


TEXTS = {f"t{n}": f"answer {n}" for n in range(1, 6)} | {f"q{n}": f"question {n}" for n in range(5)}
TEXTS |= {f"w{n}": f"written {n}" for n in range(1, 4)}


def slow_pairs(row: dict) -> set[tuple[int, int]]:
    """Look at every ordered pair and keep those where the first is strictly better and reads differently."""
    return {
        (better["completion"], worse["completion"])
        for better, worse in permutations(row["completions"], 2)
        if row["outcome"] == "ranked" and better["rank"] < worse["rank"] and better["text"] != worse["text"]
    }


@given(rows())
def test_pairs_are_those_of_a_slow_plain_twin(made):
    for row in made:
        pairs = [(better["completion"], worse["completion"]) for better, worse in ranked_pairs(row)]
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == slow_pairs(row)


@given(rows())
def test_the_order_of_completions_in_a_row_changes_nothing(made):
    for row in made:
        assert ranked_pairs({**row, "completions": row["completions"][::-1]}) == ranked_pairs(row)


@given(rows(), st.sampled_from(["train", "held_out"]))
def test_lines_are_of_one_split_with_the_pairs_of_a_ranking_side_by_side(made, split):
    lines = list(pair_lines(made, texts=TEXTS, split=split))
    of_split = [row for row in made if row["split"] == split]
    assert len(lines) == sum(len(slow_pairs(row)) for row in of_split)
    assert [line["ranking"] for line in lines] == sorted(line["ranking"] for line in lines)
    assert {line["ranking"] for line in lines} <= {row["ranking"] for row in of_split}
    for line in lines:
        row = made[line["ranking"]]
        assert line["prompt"] == [{"role": "user", "content": TEXTS[row["messages"][0]["text"]]}]
        assert line["prompt_id"] == row["prompt"]
        assert line["weight"] == 1.0
        assert [message["role"] for message in line["chosen"] + line["rejected"]] == ["assistant"] * 2
        assert line["chosen"] != line["rejected"]


@given(rows())
def test_the_counts_are_those_of_the_lines(made):
    counts = count_rows(made)
    for split in ("train", "held_out"):
        assert counts[f"{split}_pairs"] == len(list(pair_lines(made, texts=TEXTS, split=split)))
    assert counts["judgments"] == len(made)
    assert counts["comparisons"] == len({row["comparison"] for row in made})
    assert counts["all_bad"] == len([row for row in made if row["outcome"] == "all_bad"])
    assert counts["cannot_judge"] == len([row for row in made if row["outcome"] == "cannot_judge"])
    tied = [
        1
        for row in made
        if row["outcome"] == "ranked"
        for a in row["completions"]
        for b in row["completions"]
        if a["completion"] < b["completion"] and a["rank"] == b["rank"]
    ]
    assert counts["tied_pairs"] == len(tied)


def test_a_ranking_with_ties_gives_the_pairs_one_would_write_down():
    row = {
        "outcome": "ranked",
        "completions": [
            {"completion": n, "text": text, "rank": rank}
            for n, (text, rank) in enumerate([("a", 2), ("b", 1), ("c", 1), ("d", 3), ("a", 3)])
        ],
    }
    assert [(b["completion"], w["completion"]) for b, w in ranked_pairs(row)] == [
        *((1, 0), (1, 3), (1, 4)),
        *((2, 0), (2, 3), (2, 4)),
        (0, 3),  # not (0, 4): the same text
    ]


@given(rows())
def test_every_text_a_row_refers_to_is_named(made):
    named = text_digests(made)
    for row in made:
        assert row["messages"][0]["text"] in named
        assert {completion["text"] for completion in row["completions"]} <= named
        assert {answer["text"] for answer in row.get("edits", [])} <= named


@given(rows())
def test_each_written_answer_is_one_line_of_its_split_and_is_counted_once(made):
    lines = {split: list(sft_lines(made, texts=TEXTS, split=split)) for split in ("train", "held_out")}
    for split, found in lines.items():
        wanted = [
            {
                "prompt": [{"role": "user", "content": TEXTS[row["messages"][0]["text"]]}],
                "completion": [{"role": "assistant", "content": TEXTS[answer["text"]]}],
                "ranking": row["ranking"],
                "prompt_id": row["prompt"],
                "weight": 1.0,
            }
            for row in made
            for answer in row.get("edits", [])
            if row["split"] == split
        ]
        assert found == wanted
    counts = count_rows(made)
    assert {split: counts[f"{split}_demonstrations"] for split in lines} == {
        split: len(found) for split, found in lines.items()
    }
    assert counts["demonstrations"] + counts["edits"] == sum(map(len, lines.values()))
    every = [answer for row in made for answer in row.get("edits", [])]
    assert counts["edits"] == len([answer for answer in every if answer["edited_from"] is not None])


def slow_calls(row: dict) -> set[tuple[int, bool]]:
    """Count by hand whom each completion beats and who beats it."""
    found = set()
    for one in row["completions"]:
        others = [other for other in row["completions"] if other is not one]
        if row["outcome"] == "all_bad":
            found.add((one["completion"], False))
        elif row["outcome"] == "ranked":
            beats = len([other for other in others if other["rank"] > one["rank"]])
            loses = len([other for other in others if other["rank"] < one["rank"]])
            if beats != loses:
                found.add((one["completion"], beats > loses))
    return found


@given(rows())
def test_good_beats_more_than_beat_it_and_all_bad_calls_each_bad(found):
    for row in found:
        assert {
            (completion["completion"], good) for completion, good in called_good_or_bad(row)
        } == slow_calls(row)


@given(rows())
def test_outcomes_and_prompts_stay_in_their_split_and_each_prompt_comes_once(found):
    for split in ("train", "held_out"):
        mine = [row for row in found if row["split"] == split]
        lines = list(outcome_lines(found, texts=TEXTS, split=split))
        assert len(lines) == sum(len(slow_calls(row)) for row in mine)
        assert {line["ranking"] for line in lines} <= {row["ranking"] for row in mine}
        prompts = [line["prompt_id"] for line in prompt_lines(found, texts=TEXTS, split=split)]
        assert prompts == list(dict.fromkeys(row["prompt"] for row in mine))


@given(rows())
def test_a_dataset_counts_what_each_form_has(found):
    counts = count_rows(found)
    for form, (lines, _) in FORMS.items():
        for split in ("train", "held_out"):
            assert counts[f"{split}_{form}"] == len(list(lines(found, texts=TEXTS, split=split)))
