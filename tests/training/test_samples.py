"""What a policy wrote at each evaluation: two of them side by side, on its page and in the API."""

import json
import uuid

import pytest

from annotation.services.members import open_project
from tests.api import Caller
from tests.cast import Cast
from training.models import TrainingRun
from training.selectors.samples import samples_of, steps_of
from training.worker import attempt_folder

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(cast: Cast, stored) -> TrainingRun:
    return TrainingRun.objects.create(project=cast.project, step="ppo", method="ppo", attempt=2)


def address(run: TrainingRun) -> str:
    return f"/p/tea/runs/{run.pk}/samples/"


def write(run: TrainingRun, rewards: dict[int, list[float]], *, end: str = "") -> None:
    """Evaluations by step with the reward of each prompt's completion. The platform writes numbers, recipes texts."""
    folder = attempt_folder(run)
    folder.mkdir(parents=True)
    asked = [
        {"prompt_id": n, "prompt": [{"role": "user", "content": f"Why <{n}>?"}]}
        for n in range(len(next(iter(rewards.values()))))
    ]
    (folder / "held_out.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    samples = [
        {"step": step, "prompt_id": str(n), "text": f"step {step} <b>{n}</b>", "reward": reward}
        for step, some in rewards.items()
        for n, reward in enumerate(some)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples) + end)


def test_the_first_and_the_last_evaluation_stand_side_by_side(site, run):
    write(run, {0: [0.5, -1.0], 4: [1.0, 1.0], 8: [0.25, 2.0]})
    page = site.get(address(run)).content.decode()
    assert page.index("Why &lt;0&gt;?") < page.index("step 0 &lt;b&gt;0") < page.index("step 8 &lt;b&gt;0")
    assert "step 4 " not in page
    assert "(+3" in page
    assert "(-0.25" in page or "(−0.25" in page


def test_other_evaluations_and_another_order_can_be_asked_for(site, run):
    write(run, {0: [0.0, 0.0, 0.0], 4: [1.0, 3.0, -1.0]})
    page = site.get(address(run), {"before": 4, "after": 4}).content.decode()
    assert "step 0 &lt;b&gt;" not in page
    for order, first in (("gained", 1), ("lost", 2)):
        page = site.get(address(run), {"order": order}).content.decode()
        places = {n: page.index(f"Why &lt;{n}&gt;?") for n in range(3)}
        assert min(places, key=places.__getitem__) == first


def test_an_evaluation_that_does_not_exist_is_named(site, run):
    write(run, {0: [0.0]})
    assert "Select a valid choice" in site.get(address(run), {"after": 7}).content.decode()


def test_only_the_latest_attempt_is_read_and_an_unfinished_line_is_not(run):
    write(run, {0: [1.0]}, end='{"step": 1, "prompt_id": "0", "te')
    TrainingRun.objects.filter(pk=run.pk).update(attempt=3)
    assert steps_of(samples_of(run)) == [0]
    run.refresh_from_db()
    assert samples_of(run) == []  # what it is to go on with, a new attempt is given a copy of


def test_without_samples_the_page_says_which_methods_keep_some(site, run):
    page = site.get(address(run))
    assert page.status_code == 200
    assert "No samples yet" in page.content.decode()
    assert "What it writes" in site.get(f"/p/tea/runs/{run.pk}/").content.decode()
    other = TrainingRun.objects.create(project=run.project, step="dpo", method="dpo")
    assert "What it writes" not in site.get(f"/p/tea/runs/{other.pk}/").content.decode()


def test_the_api_gives_one_evaluation_by_default_the_latest(cast, run):
    caller = Caller(cast.researcher)
    path = f"/api/v1/projects/tea/runs/{run.pk}/samples"
    assert caller.get(path).json() == {"steps": [], "step": None, "samples": []}
    write(run, {0: [0.5], 4: [1.5]})
    latest = caller.get(path).json()
    assert (latest["steps"], latest["step"]) == ([0, 4], 4)
    assert latest["samples"] == [
        {
            "prompt_id": "0",
            "prompt": [{"role": "user", "content": "Why <0>?"}],
            "text": "step 4 <b>0</b>",
            "reward": 1.5,
        }
    ]
    assert caller.get(path, step=0).json()["samples"][0]["reward"] == 0.5
    assert caller.get(path, step=3).json()["samples"] == []
    assert caller.get(path, step="x").status_code == 400


def test_those_of_others_are_not_found(client, cast, run):
    other = open_project(slug="foreign", name="Foreign", user=cast.admin)
    foreign = TrainingRun.objects.create(project=other, step="ppo", method="ppo")
    client.force_login(cast.researcher)
    assert client.get(f"/p/tea/runs/{foreign.pk}/samples/").status_code == 404
    assert client.get(f"/p/tea/runs/{uuid.uuid4()}/samples/").status_code == 404
    client.force_login(cast.anna)
    assert client.get(address(run)).status_code == 404
