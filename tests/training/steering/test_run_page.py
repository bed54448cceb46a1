"""The page of one run: options, results, curves, and what can be done with it."""

import re

import pytest

from tests.pages import text_of
from tests.training.steering.stage import add_run, whole_run
from training.measurements import beside, catalogue, main_rate
from training.models import TrainingRun, WorkStatus
from training.recipes.options import describe_options

pytestmark = pytest.mark.django_db


def test_the_page_of_a_run_tells_each_option_with_its_help_and_which_was_changed(site, cast, base, dataset):
    run = whole_run(cast, base, dataset, options={"beta": 0.25})
    content = site.get(f"/p/tea/runs/{run.pk}/").content.decode()
    for option in describe_options("dpo"):
        assert f'<th scope="row">{option["name"]}</th>' in content
    row = content[content.index(">beta<") :].split("</tr>")[0]
    assert "0.25" in row and "not the default" in row and "Default: 0.1" in row
    assert content.count("not the default") == 1


def test_the_page_of_a_run_shows_what_stands_beside_its_result_and_what_happened_on_the_way(site, cast):
    metrics = {
        "accuracy": 0.71,
        "interval": [0.58, 0.83],
        "pairs": 38,
        "human_ceiling": {"agreement": 0.82, "interval": [0.7, 0.9], "accuracy": 0.74},
        "length_baseline": {"accuracy": 0.66, "interval": [0.5, 0.8], "pairs": 38},
        "calibration_error": 0.043,
        "at_start": {"accuracy": 0.47, "pairs": 38},
    }
    run = add_run(
        cast,
        method="reward",
        status=WorkStatus.SUCCEEDED,
        halvings=1,
        result={"ok": True, "metrics": metrics},
    )
    page = text_of(site.get(f"/p/tea/runs/{run.pk}/"))
    assert "Memory ran out once: micro-batch halved." in page
    for said in (
        "71 % of 38 pairs [58 %, 83 %]",
        "Human ceiling82 % [70 %, 90 %]",
        "The model on the same pairs74 %",
        "Length alone66 %",
    ):
        assert said in page
    assert "Calibration error0.043" in page and "Before training47 %" in page

    online = {
        "win_rate": 0.64,
        "interval": [0.5, 0.7],
        "prompts": 40,
        "kl": 4.2,
        "best_of_4_win_rate": 0.8,
        "best_of_4_reward": 1.5,
        "at_start": {"win_rate": 0.5},
        "stopped": "the KL to the reference reached 26.1 at step 19",
        "steps": 19,
    }
    TrainingRun.objects.update(method="ppo", halvings=3, result={"ok": True, "metrics": online})
    page = text_of(site.get(f"/p/tea/runs/{run.pk}/"))
    assert "Memory ran out 3 times" in page
    assert "computed together, the result stays the same." in page
    assert "It ended early, after step 19: the KL to the reference reached 26.1 at step 19." in page
    assert "the policy beats its parent on 64 % of 40 prompts" in page
    assert "Best-of-4, untrained80 %" in page and "Before training50 %" in page


def test_a_run_that_is_judged_by_its_loss_shows_that_with_its_interval(site, cast):
    metrics = {
        "loss": 1.25,
        "interval": [1.1, 1.4],
        "perplexity": 3.49,
        "answers": 12,
        "at_start": {"loss": 2.5},
    }
    run = add_run(cast, "sft", method="sft", status=WorkStatus.SUCCEEDED, result={"metrics": metrics})
    page = text_of(site.get(f"/p/tea/runs/{run.pk}/"))
    assert "Held-out loss1.25 [1.1, 1.4]" in page and "Held-out perplexity3.49" in page
    assert "Before training" not in page  # a loss is no share


@pytest.mark.parametrize("metrics", [{}, {"accuracy": "x", "interval": 3}, {"at_start": None, "kl": [1]}])
def test_results_that_lack_something_are_shown_without_it(site, cast, metrics):
    run = add_run(cast, status=WorkStatus.SUCCEEDED, result={"metrics": metrics})
    assert main_rate(metrics) is None and beside(metrics) == []
    assert site.get(f"/p/tea/runs/{run.pk}/").status_code == 200


def test_what_the_page_offers_goes_with_the_state(site, cast):
    run = add_run(cast, status=WorkStatus.RUNNING, attempt=1)
    for status, offered in (
        (WorkStatus.RUNNING, ["cancel", "duplicate"]),
        (WorkStatus.FAILED, ["continue", "duplicate"]),
        (WorkStatus.CANCELLED, ["continue", "duplicate"]),
        (WorkStatus.SUCCEEDED, ["duplicate"]),
    ):
        TrainingRun.objects.update(status=status)
        content = site.get(f"/p/tea/runs/{run.pk}/").content.decode()
        assert re.findall(r'<button type="submit"[^>]* id="(\w+)"', content) == offered


def test_a_run_that_can_not_go_on_is_not_offered_to(site, cast, round):
    never_began = add_run(cast, status=WorkStatus.CANCELLED)
    begun = add_run(cast, status=WorkStatus.CANCELLED, attempt=1)
    of_round = add_run(cast, round=round, status=WorkStatus.CANCELLED)

    def is_offered(run) -> bool:
        return 'id="continue"' in site.get(f"/p/tea/runs/{run.pk}/").content.decode()

    assert [is_offered(run) for run in (never_began, begun, of_round)] == [False, True, True]
    type(round).objects.filter(pk=round.pk).update(status="cancelled")
    assert not is_offered(of_round)


def test_every_group_of_curves_has_a_title_and_no_metric_stands_in_two():
    groups = catalogue()["groups"]
    names = [name for group in groups for name in group["names"]]
    assert len(names) == len(set(names))
    assert [group["title"] for group in groups] == [
        "Loss",
        "Reward, KL and length",
        "Preferences",
        "On held-out prompts",
        "Optimisation",
        "Others",
    ]
