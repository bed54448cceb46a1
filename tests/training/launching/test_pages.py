"""The form of a run and the page of a draft."""

import re
import uuid
from typing import Any

import pytest

from tests.api import Caller
from tests.training.launching.stage import CUT, FINE, LEAK, RUNS, look_over, text_of
from training.models import Checkpoint, PreferenceDataset, RunInput, TrainingRun, WorkStatus
from training.recipes.options import METHODS, describe_options
from training.recipes.presets import PRESETS
from training.services.launching import (
    change_draft,
)

pytestmark = pytest.mark.django_db


def form(dataset: PreferenceDataset, base: Checkpoint, **changes: Any) -> dict[str, Any]:
    return {
        "launch_key": str(uuid.uuid4()), "name": "", "dataset": dataset.pk, "parent": base.pk, "seed": 1, **changes
    }  # fmt: skip


NEW = "/p/tea/runs/new/"


@pytest.mark.parametrize("method", METHODS)
def test_the_form_shows_every_option_with_its_help_and_default(site, dataset, base, method):
    page = site.get(NEW, {"method": method})
    assert page.status_code == 200
    html = page.content.decode()
    for option in describe_options(method):
        assert f'name="option_{option["name"]}"' in html
        assert option["source"].split("&")[0].split("'")[0][:30] in text_of(page).replace("&#x27;", "'")
    assert ('name="reward_model"' in html) == (METHODS[method].makes == "policy")


def test_a_reward_model_that_a_policy_is_measured_by_is_asked_for_and_not_chosen_unasked(
    site, dataset, base, judge
):
    assert site.get(NEW, {"method": "ppo"}).context["form"]["reward_model"].value() == judge.pk
    shown = site.get(NEW, {"method": "dpo"})
    assert shown.context["form"]["reward_model"].value() is None
    assert "Not needed to learn." in text_of(shown)
    sent = form(dataset, base, reward_model=judge.pk)
    assert site.post(f"{NEW}?method=dpo", sent).status_code == 302
    run = TrainingRun.objects.get(method="dpo")
    assert run.inputs.get(role=RunInput.Role.REWARD_MODEL).checkpoint == judge
    assert "reward_model" not in run.recipe["options"]
    whole = form(dataset, base, reward_model=judge.pk, option_weights="full")
    assert "Leave it out, or set weights to lora" in text_of(site.post(f"{NEW}?method=dpo", whole))


def test_a_form_with_many_checkpoints_and_datasets_asks_as_much_of_the_database_as_one_with_few(
    site, cast, ranked, dataset, base, django_assert_num_queries
):
    counts = []
    for number in range(5):
        for kind in ("policy", "reward"):
            Checkpoint.objects.create(
                project=cast.project, name=f"{kind} {number}", kind=kind, digest=f"{number}" * 64, base=base
            )
        frozen = PreferenceDataset.objects.create(project=cast.project, digest=f"{number}" * 64)
        frozen.rounds.set([ranked])
        if number in (0, 4):
            with django_assert_num_queries(10**6, exact=False) as captured:
                page = text_of(site.get(NEW, {"method": "dpo"}))
            counts.append(len(captured))
    assert "policy 4 (policy on tiny)" in page and "444444444444, round 1:" in page
    assert counts[0] == counts[1]


def test_a_checkpoint_is_continued_by_the_methods_that_can(site, cast, dataset, base, judge):
    named = {"project": cast.project, "base": base, "digest": "a" * 64}
    policy = Checkpoint.objects.create(name="first policy", kind="policy", **named)
    opened = site.get(NEW, {"parent": policy.pk})
    assert (opened.context["method_name"], opened.context["form"]["parent"].value()) == ("dpo", policy.pk)
    links = re.findall(r'href="\?([^"]+)"', opened.content.decode())
    assert links and all(f"parent={policy.pk}" in link for link in links)
    ppo = site.get(NEW, {"parent": policy.pk, "method": "ppo"}).context["form"]
    assert (ppo["parent"].value(), ppo["reward_model"].value()) == (policy.pk, judge.pk)
    scores = site.get(NEW, {"parent": judge.pk})
    assert (scores.context["method_name"], scores.context["form"]["parent"].value()) == ("reward", judge.pk)
    # A reward model does not write, so DPO starts from the base; nonsense and what is not here are passed over.
    for given in (
        {"parent": judge.pk, "method": "dpo"},
        {"parent": "x"},
        {"parent": "9" * 30},
        {"parent": "²"},
    ):
        assert site.get(NEW, given).context["form"]["parent"].value() == base.pk


def test_a_preset_fills_the_form(site, dataset, base):
    chosen = PRESETS["cpu-smoke"].options("dpo")
    shown = site.get(NEW, {"method": "dpo", "preset": "cpu-smoke"}).context["form"]
    assert shown["option_steps"].value() == chosen["steps"]
    assert shown["option_beta"].value() == 0.1
    nonsense = site.get(NEW, {"method": "dpo", "preset": "<script>", "like": "x"})
    assert nonsense.status_code == 200
    assert "<script>" not in nonsense.content.decode()


def test_a_form_sent_twice_makes_one_draft_and_leads_to_its_page(site, dataset, base):
    sent = form(dataset, base, name="Shorter answers", option_steps=12, option_learning_rate="")
    for _ in range(2):
        answer = site.post(f"{NEW}?method=dpo", sent)
    run = TrainingRun.objects.get()
    assert answer.url == f"/p/tea/runs/{run.pk}/"
    assert (run.step, run.recipe["options"]["steps"], run.recipe["options"]["learning_rate"]) == (
        "Shorter answers",
        12,
        5e-4,
    )
    page = site.get(answer.url)
    assert "Looking it over" in text_of(page)
    assert "every 2s" in page.content.decode()


def test_a_form_sent_again_with_other_content_says_so_and_sent_once_more_opens_another_draft(
    site, dataset, base
):
    sent = form(dataset, base, option_learning_rate="0.0001")
    site.post(f"{NEW}?method=dpo", sent)
    first = TrainingRun.objects.get()
    changed = sent | {"option_learning_rate": "0.0002"}
    told = site.post(f"{NEW}?method=dpo", changed)
    assert told.status_code == 400
    assert f"opened the run {first}, which differs in options" in text_of(told)
    assert "submit it again" in text_of(told)
    shown = told.context["form"]
    assert shown["option_learning_rate"].value() == "0.0002"
    fresh = re.search(r'name="launch_key" value="([^"]+)"', told.content.decode())[1]
    assert fresh != sent["launch_key"]
    for _ in range(2):
        again = site.post(f"{NEW}?method=dpo", changed | {"launch_key": fresh})
    second = TrainingRun.objects.exclude(pk=first.pk).get()
    assert again.url == f"/p/tea/runs/{second.pk}/"
    rates = [run.recipe["options"]["learning_rate"] for run in (first, second)]
    assert rates == [0.0001, 0.0002]


def test_rounds_are_frozen_when_no_dataset_is_chosen(site, ranked, base):
    nothing = PreferenceDataset()
    sent = {**form(nothing, base), "dataset": "", "rounds": [ranked.pk]}
    for _ in range(2):
        assert site.post(f"{NEW}?method=dpo", sent).status_code == 302
    assert TrainingRun.objects.get().inputs.get(role="data").dataset == ranked.datasets.get()
    refused = site.post(f"{NEW}?method=dpo", {**form(nothing, base), "dataset": ""})
    assert refused.status_code == 400
    assert "tick rounds to freeze one from" in text_of(refused)


def test_judgments_of_some_are_left_out_by_form_and_by_api_and_the_dataset_says_so(site, cast, ranked, base):
    page = site.get(NEW, {"method": "dpo"})
    assert "Leave out what was judged by" in text_of(page)
    sent = {**form(PreferenceDataset(), base), "dataset": "", "rounds": [ranked.pk], "without": [cast.ben.pk]}
    assert site.post(f"{NEW}?method=dpo", sent).status_code == 302
    dataset = ranked.datasets.get()
    shown = text_of(site.get(f"/p/tea/datasets/{dataset.pk}/"))
    assert "Left out" in shown and "all of ben" in shown
    both = site.post(f"{NEW}?method=dpo", sent | {"dataset": dataset.pk})
    assert both.status_code == 400
    assert "Nothing can be left out of a dataset that is frozen" in text_of(both)
    assert both.content.decode().count("<details open>") == 2  # where it is said
    asked = {"method": "dpo", "rounds": [ranked.number], "without": ["ben"], "parent": base.pk}
    caller = Caller(cast.researcher)
    assert caller.post(RUNS, asked).json()["inputs"]
    assert ranked.datasets.get() == dataset
    told = caller.get(f"/api/v1/projects/tea/datasets/{dataset.pk}").json()
    assert told["left_out"]["without"] == ["ben"]
    assert told["left_out"]["left_out"] > 0
    assert caller.post(RUNS, {**asked, "without": ["nobody"]}).status_code == 400
    assert caller.post(RUNS, {**asked, "guideline_from": 2**40}).status_code == 400


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"option_beta": "0"}, "greater than or equal to 0.0001"),
        ({"option_loss": "hinge"}, "not one of the available choices"),
        ({"option_flipped_share": "0.2"}, "Set loss to robust"),
        ({"parent": 999_999}, "not one of the available choices"),
        ({"seed": ""}, "This field is required"),
    ],
)
def test_a_wrong_form_says_what_to_change_and_opens_nothing(site, dataset, base, changes, said):
    page = site.post(f"{NEW}?method=dpo", form(dataset, base, **changes))
    assert page.status_code == 400
    assert said in text_of(page)
    assert not TrainingRun.objects.exists()


def test_the_pages_say_what_is_missing_first(site, cast):
    assert "Register the default model" in text_of(site.get(NEW))
    Checkpoint.objects.create(project=cast.project, name="base", kind="base", digest="b" * 64)
    assert "Nothing to learn from yet" in text_of(site.get(NEW))


def test_findings_are_shown_escaped_and_the_launch_asks_for_acceptance(site, cast, run):
    hostile = "<img src=x onerror=alert(1)>"
    side = {"name": "chosen", "runs": [
        {"text": "<|im_start|>", "kind": "special", "learnt": False, "cut": False},
        {"text": f"user\n{hostile}", "kind": "template", "learnt": False, "cut": False},
        {"text": hostile, "kind": "text", "learnt": True, "cut": False},
        {"text": hostile, "kind": "text", "learnt": False, "cut": True},
    ]}  # fmt: skip
    split = {"rows": 60, "tokens": 6000, "mean": 50.0, "p95": 80, "longest": 90, "truncated": 3, "dropped": 0}
    cut = {"how": "truncated", "why": "too long", "rows": 3, "first": "train row 7"}
    look_over(run, {
        **CUT, "notices": [hostile], "splits": {"train": {**split, "cut": [cut]}}, "leaked": [],
        "examples": [{"where": "train row 1", "tokens": 90, "sides": [side]}], "estimates": [],
        "fingerprints": {"tokenizer": "a" * 64, "chat_template": "b" * 64},
    })  # fmt: skip
    page = site.get(f"/p/tea/runs/{run.pk}/")
    html = page.content.decode()
    assert "<img" not in html
    assert html.count("&lt;img src=x") == 4
    assert f"<mark>{hostile.replace('<', '&lt;').replace('>', '&gt;')}</mark>" in html
    assert "user↵" in html
    assert "3 train rows truncated: too long" in text_of(page).replace("  ", " ")
    assert 'name="accept"' in html
    launch = f"/p/tea/runs/{run.pk}/launch/"
    refused = site.post(launch, {"of": run.findings["of"]}, follow=True)
    assert "would be truncated or dropped" in text_of(refused)
    launched = site.post(launch, {"of": run.findings["of"], "accept": "on"}, follow=True)
    assert "is launched and waits for a worker" in text_of(launched)
    assert TrainingRun.objects.get().status == WorkStatus.QUEUED
    assert "no longer a draft" in text_of(site.get(f"/p/tea/runs/{run.pk}/findings/"))


def test_problems_are_shown_with_their_remedy_and_there_is_no_launch_button(site, run):
    look_over(run, LEAK)
    page = site.get(f"/p/tea/runs/{run.pk}/")
    assert "This run can't be launched as it is." in text_of(page)
    assert "the first is train row 3" in text_of(page)
    assert "Mend it." in text_of(page)
    assert 'id="launch"' not in page.content.decode()


def test_a_draft_is_changed_looked_over_again_and_put_away_by_its_page(site, run, dataset, base):
    look_over(run, FINE)
    address = f"/p/tea/runs/{run.pk}/"
    shown = site.get(f"{address}change/").context["form"]
    assert (shown["dataset"].value(), shown["parent"].value()) == (dataset.pk, base.pk)
    site.post(f"{address}change/", form(dataset, base, option_beta="0.3"))
    run.refresh_from_db()
    assert (run.recipe["options"]["beta"], run.findings) == (0.3, {})
    look_over(run, FINE)
    site.post(f"{address}check/")
    run.refresh_from_db()
    assert run.findings == {}
    site.post(f"{address}discard/")
    run.refresh_from_db()
    assert run.status == WorkStatus.CANCELLED
    assert site.get(f"{address}change/").url == address


def test_a_run_is_duplicated_from_the_form_with_everything_it_had(site, cast, run, base):
    change_draft(
        run=run, user=cast.researcher, dataset=run.inputs.get(role="data").dataset, parent=base, reward_model=None,
        options={"beta": 0.7}, name="With more beta", seed=9,
    )  # fmt: skip
    shown = site.get(NEW, {"like": run.pk}).context["form"]
    assert (shown["option_beta"].value(), shown["seed"].value(), shown["name"].value()) == (
        0.7,
        9,
        "With more beta",
    )
    data = run.inputs.get(role="data").dataset
    site.post(f"{NEW}?like={run.pk}", form(data, base, option_beta="0.8"))
    assert TrainingRun.objects.exclude(pk=run.pk).get().duplicate_of == run


ADDRESSES = ["", "change/", "findings/", "launch/", "check/", "discard/"]


@pytest.mark.parametrize("who", ["anna", "reviewer", "stranger"])
def test_launching_is_for_researchers_and_everything_else_is_missing(client, cast, run, who):
    client.force_login(getattr(cast, who))
    assert client.get(NEW).status_code == 404
    for part in ADDRESSES:
        method = client.post if part in ("launch/", "check/", "discard/") else client.get
        assert method(f"/p/tea/runs/{run.pk}/{part}").status_code == 404, part
    caller = Caller(getattr(cast, who))
    assert caller.post(RUNS, {}).status_code == 404
    for answer in (caller.patch(f"{RUNS}/{run.pk}", {}), caller.post(f"{RUNS}/{run.pk}/launch")):
        assert answer.status_code == 404
    assert TrainingRun.objects.get().status == WorkStatus.DRAFT


def test_what_changes_something_takes_a_post(site, run):
    for part in ("launch/", "check/", "discard/"):
        assert site.get(f"/p/tea/runs/{run.pk}/{part}").status_code == 405
