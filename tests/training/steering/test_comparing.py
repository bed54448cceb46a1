"""Several runs beside each other: what differs, and what no page gives away."""

import json
import re
import uuid

import pytest

from annotation.services.members import open_project
from tests.pages import text_of
from tests.training.steering.stage import RUNS, add_run, whole_run

pytestmark = pytest.mark.django_db


def compared(rows) -> dict[tuple[str, str], tuple[list, bool]]:
    return {(row.section, row.name): (row.values, row.differs) for row in rows}


def test_two_runs_are_laid_beside_each_other_with_what_differs_marked(site, two):
    dpo, ppo = two
    answer = site.get("/p/tea/runs/compare/", {"run": [dpo.pk, ppo.pk]})
    rows = compared(answer.context["rows"])
    assert rows["run", "method"] == (["DPO", "PPO"], True)
    assert rows["run", "seed"] == ([7, 7], False)
    assert rows["inputs", "base"] == (["tiny", "tiny"], False)
    assert rows["inputs", "data"] == (["dataset dddddddddddd"] * 2, False)
    assert rows["options", "beta"] == ([0.2, None], True)
    assert rows["options", "kl_target"][0][0] is None and rows["options", "kl_target"][1]
    assert rows["results", "at_start.kl"] == ([None, 0.0], True)
    curves = json.loads(answer.context["curves"])
    assert [each["address"] for each in curves] == [f"/p/tea/runs/{run.pk}/metrics.json" for run in two]
    same = re.findall(r'<tr class="same">\s*<th scope="row"[^>]*>([^<]+)<', answer.content.decode())
    assert "seed" in same and "beta" not in same and "method" not in same


def test_equal_runs_differ_in_nothing(site, cast, base, dataset):
    runs = [whole_run(cast, base, dataset) for _ in range(2)]
    assert "In nothing" in text_of(site.get("/p/tea/runs/compare/", {"run": [run.pk for run in runs]}))


def test_too_few_or_too_many_runs_say_how_many_to_tick(site, cast):
    runs = [add_run(cast, f"run_{n}") for n in range(7)]
    for ids in ([], [runs[0].pk], [runs[0].pk, runs[0].pk]):
        assert "Choose runs first" in text_of(site.get("/p/tea/runs/compare/", {"run": ids}))
    assert "You ticked 7" in text_of(site.get("/p/tea/runs/compare/", {"run": [run.pk for run in runs]}))
    assert site.get("/p/tea/runs/compare/", {"run": [run.pk for run in runs[:6]]}).context["rows"]


def test_a_foreign_a_missing_and_a_nonsensical_run_are_all_not_found(site, cast, two):
    other = open_project(slug="coffee", name="Coffee", user=cast.stranger)
    foreign = add_run(cast, project=other)
    for run in (foreign.pk, uuid.uuid4(), "7", "'><b>"):
        for address in ("/p/tea/runs/compare/", f"{RUNS}/compare"):
            assert site.get(address, {"run": [two[0].pk, run]}).status_code == 404


def test_names_and_values_of_runs_are_escaped_wherever_they_stand(site, cast):
    evil = "<img src=x>"
    runs = [
        add_run(
            cast,
            evil,
            method=f"{evil}{n}",
            recipe={"options": {evil: evil}},
            result={"metrics": {evil: evil}},
        )
        for n in range(2)
    ]
    for address in ("/p/tea/runs/", f"/p/tea/runs/{runs[0].pk}/", "/p/tea/runs/compare/"):
        content = site.get(address, {"run": [run.pk for run in runs]} if "compare" in address else {}).content
        assert b"<img" not in content and b"&lt;img" in content


def test_differences_are_told_by_api(caller, two):
    dpo, ppo = two
    told = caller.get(f"{RUNS}/compare?run={dpo.pk}&run={ppo.pk}").json()
    assert [run["id"] for run in told["runs"]] == [str(dpo.pk), str(ppo.pk)]
    beta = next(row for row in told["rows"] if row["name"] == "beta")
    assert beta == {"section": "options", "name": "beta", "values": [0.2, None], "differs": True}
    assert caller.get(f"{RUNS}/compare?run={dpo.pk}").status_code == 400
    assert caller.get(f"{RUNS}/compare?run={dpo.pk}&run={ppo.pk}&sort=x").status_code == 400
