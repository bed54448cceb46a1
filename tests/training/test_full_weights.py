"""Checkpoints of which all weights were trained: what they can be used for, and what is refused early."""

import re

import pytest

from annotation.models import Completion, Round
from rankloop.errors import Refused
from tests.cast import Cast, add_prompts, add_simulated, assemble
from tests.training.stage import base_folder, draft, rank, to_ranking
from training import looking_over, store, worker
from training.exporting import write_export, write_merged
from training.models import Checkpoint, Evaluation, GenerationJob, PreferenceDataset, TrainingRun, WorkStatus
from training.plans import checked_plan
from training.run_form import RunForm
from training.selectors.weights import weights_of
from training.services.checkpoints import check_model_folder, register_base, register_policy
from training.services.launching import launch_draft, open_draft
from training.services.rounds import advance_round, launch_round, open_round
from training.services.runs import newest_reward_model
from training.services.snapshots import snapshot_rounds

FULL = {"weights": "full"}
DECODING = {"max_new_tokens": 8}
QUICK = {"steps": 2, "batch_size": 4, "save_steps": 1, "warmup_steps": 0}


def add(base: Checkpoint, name: str, kind: str, **fields) -> Checkpoint:
    return Checkpoint.objects.create(
        project=base.project, name=name, kind=kind, digest=name[0] * 64, base=base, **fields
    )


@pytest.fixture
def whole(base: Checkpoint) -> Checkpoint:
    """A policy of which all weights were trained."""
    return add(base, "whole", "policy", all_weights=True)


@pytest.fixture
def adapter(base: Checkpoint) -> Checkpoint:
    return add(base, "adapter", "policy")


@pytest.fixture
def judge(base: Checkpoint) -> Checkpoint:
    """A reward model of which all weights were trained."""
    return add(base, "judge", "reward", all_weights=True)


@pytest.fixture
def dataset(cast: Cast, base: Checkpoint) -> PreferenceDataset:
    add_prompts(cast, 16)
    round = draft(cast, base, overlap=1)
    to_ranking(round)
    rank(cast, [cast.anna])
    return snapshot_rounds(project=cast.project, rounds=[round])


def drafted(cast: Cast, dataset: PreferenceDataset, parent: Checkpoint, **changes) -> TrainingRun:
    given = {"method": "dpo", "options": {}, "dataset": dataset, "parent": parent, **changes}
    return open_draft(project=cast.project, user=cast.researcher, **given)


def inputs_of(run: TrainingRun) -> dict[str, Checkpoint]:
    return {item.role: item.checkpoint for item in run.inputs.exclude(role="data")}


# --- a run by hand ---


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["dpo", "reward"])
@pytest.mark.parametrize("options", [{}, FULL])
def test_a_run_starts_on_whole_weights_as_on_a_base(cast, dataset, whole, method, options):
    run = drafted(cast, dataset, whole, method=method, options=options)
    assert inputs_of(run) == {"base": whole}


@pytest.mark.django_db
def test_a_reward_model_goes_on_from_a_whole_one_and_a_policy_does_not(cast, dataset, judge):
    assert inputs_of(drafted(cast, dataset, judge, method="reward", options=FULL)) == {"base": judge}
    with pytest.raises(Refused, match="DPO can't go on from judge"):
        drafted(cast, dataset, judge)


@pytest.mark.django_db
def test_all_weights_of_an_adapter_are_refused_with_the_remedy(cast, dataset, adapter):
    with pytest.raises(Refused, match=r"would go on from a LoRA adapter.*Merge.*or set weights to lora"):
        drafted(cast, dataset, adapter, options=FULL)
    assert inputs_of(drafted(cast, dataset, adapter))["parent"] == adapter


@pytest.mark.django_db
def test_a_whole_reward_model_is_refused_where_one_base_is_shared(cast, dataset, base, judge):
    with pytest.raises(Refused, match=r"judge is a whole model.*trained with weights set to lora"):
        drafted(cast, dataset, base, method="ppo", reward_model=judge)
    assert newest_reward_model(base) is None
    worn = add(base, "worn", "reward")
    assert newest_reward_model(base) == worn


@pytest.mark.django_db
def test_the_form_offers_what_can_be_chosen(cast, base, whole, adapter, judge):
    worn = add(base, "worn", "reward")

    def offered(method: str, field: str) -> set[Checkpoint]:
        form = RunForm(project=cast.project, method=method, preset=None, like=None)
        return set(form.fields[field].queryset)

    assert offered("dpo", "parent") == {base, whole, adapter}
    assert offered("reward", "parent") == {base, whole, judge, worn}
    assert offered("ppo", "reward_model") == {worn}
    form = RunForm(project=cast.project, method="dpo", preset=None, like=None)
    assert "option_weights" in form.fields
    assert "option_weights" not in RunForm(project=cast.project, method="kto", preset=None, like=None).fields


@pytest.mark.django_db
def test_time_is_not_taken_from_a_run_that_trained_something_else(cast, dataset, base):
    done = drafted(cast, dataset, base)
    done.status, done.result = WorkStatus.SUCCEEDED, {"seconds": {"loop": 8}, "metrics": {"steps": 32}}
    done.save()
    assert looking_over.measured_speed(drafted(cast, dataset, base))["by"] == str(done)
    assert looking_over.measured_speed(drafted(cast, dataset, base, options=FULL)) is None


# --- a round ---


@pytest.mark.django_db
def test_a_plan_that_trains_all_weights_of_an_adapter_is_refused_before_anything_is_ranked(
    cast, base, adapter, whole
):
    add_prompts(cast, 12)
    plan = [{"method": "dpo", "options": FULL}]
    for parent in (base, whole):
        draft(cast, base, contestants=[register_policy(checkpoint=parent)], training_plan=plan)
    on_adapter = [register_policy(checkpoint=base), register_policy(checkpoint=adapter)]
    with pytest.raises(Refused, match=r"Step dpo is to train all weights.*adapter.*Set its weights to lora"):
        draft(cast, base, contestants=on_adapter, training_plan=plan)
    # A reward model starts on the base.
    draft(cast, base, contestants=on_adapter, training_plan=[{"method": "reward", "options": FULL}])


def test_a_step_that_would_share_its_base_with_a_whole_reward_model_is_refused():
    plan = [{"method": "reward", "options": FULL}, {"method": "ppo"}]
    with pytest.raises(
        Refused,
        match=r"Step ppo can't use the reward model of step reward.*Set weights of step reward to lora",
    ):
        checked_plan(plan)
    other = {"step": "other", "method": "reward"}
    assert checked_plan([plan[0], other, plan[1]])[-1]["reward_model"] == "other"


@pytest.mark.django_db
def test_completions_of_whole_weights_are_a_job_of_their_own(cast, base, whole, adapter):
    add_prompts(cast, 12)
    contestants = [register_policy(checkpoint=checkpoint) for checkpoint in (base, adapter, whole)]
    round = draft(cast, base, contestants=contestants)
    launch_round(round=round, user=cast.researcher)
    advance_round(round_id=round.pk)
    jobs = {job.base: set(job.contestants.all()) for job in GenerationJob.objects.all()}
    assert jobs == {base: set(contestants[:2]), whole: {contestants[2]}}


# --- what is published ---


@pytest.mark.django_db(transaction=True)
def test_what_is_no_whole_model_is_not_published(tmp_path):
    from training.services.checkpoints import check_trained

    base = base_folder(tmp_path / "base")
    check_trained(base_folder(tmp_path / "good"), base=base, all_weights=True)
    for name in ("tokenizer.json", "config.json", "model.safetensors"):
        bad = base_folder(tmp_path / name)
        (bad / name).unlink()
        with pytest.raises(Refused):
            check_trained(bad, base=base, all_weights=True)


def do(round: Round, kind: type, work) -> None:
    """Carry a round on, and do what waits for a worker."""
    advance_round(round_id=round.pk)
    for item in kind.objects.filter(round=round).order_by("created_at"):
        work(item.pk)
        item.refresh_from_db()
        assert item.status == WorkStatus.SUCCEEDED, item.error


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_round_trains_all_weights_and_its_policy_is_ranked_exported_and_trained_on(
    tiny_model, stored, settings, tmp_path, client
):
    settings.TRAINING_THREADS = 1
    cast = assemble()
    simulated = add_simulated(cast)
    add_prompts(cast, 12)
    base = register_base(project=cast.project, folder=tiny_model, name="tiny")
    plain = register_policy(checkpoint=base, decoding=DECODING)
    brief = register_policy(checkpoint=base, name="tiny, brief", system_prompt="Be brief.", decoding=DECODING)
    round = open_round(
        project=cast.project,
        user=cast.researcher,
        name="First",
        contestants=[plain, brief],
        audience="rehearsal",
        training_plan=[
            {"method": "reward", "options": QUICK | FULL},
            {"method": "dpo", "options": QUICK | FULL},
        ],
    )
    launch_round(round=round, user=cast.researcher)
    do(round, GenerationJob, worker.run_generation)
    advance_round(round_id=round.pk)
    rank(cast, simulated)
    do(round, TrainingRun, worker.run_training)
    advance_round(round_id=round.pk)
    round.refresh_from_db()
    assert (round.status, round.failure) == (Round.Status.CLOSED, "")

    policy, reward = Checkpoint.objects.get(kind="policy"), Checkpoint.objects.get(kind="reward")
    assert (policy.all_weights, policy.base, reward.all_weights, reward.base) == (True, base, True, base)
    assert Evaluation.objects.filter(checkpoint=reward).count() == 1
    published = store.fetch(policy.digest)
    assert store.verify(published, policy.digest)["about"]["method"] == "dpo"
    weights = weights_of(policy)
    assert (weights.is_adapter, weights.parameters) == (False, weights_of(base).parameters)

    # Given out as a whole model, by the page and as a folder.
    client.force_login(cast.researcher)
    page = re.sub(r"<[^>]+>", "", client.get(f"/p/tea/checkpoints/{policy.pk}/").content.decode())
    assert "Whole weights" in page and "Began astiny" in re.sub(r"\s+", " ", page)
    archive = b"".join(client.get(f"/p/tea/checkpoints/{policy.pk}/export.tar").streaming_content)
    assert (published / "model.safetensors").read_bytes() in archive
    write_export(policy, tmp_path / "out")
    check_model_folder(tmp_path / "out")
    assert "whole weights that began as tiny" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(Refused, match="holds whole weights already"):
        write_merged(policy, tmp_path / "merged")

    # It meets its parent in the next round.
    following = Round.objects.get(number=2)
    contestant = policy.contestants.get()
    launch_round(round=following, user=cast.researcher)
    do(following, GenerationJob, worker.run_generation)
    assert {job.base for job in following.generation_jobs.all()} == {base, policy}
    assert Completion.objects.filter(contestant=contestant).count() == following.prompts.count() * 2
    advance_round(round_id=following.pk)
    rank(cast, simulated)
    advance_round(round_id=following.pk)
    assert Evaluation.objects.filter(contestant=contestant, round=following).count() == 1

    # And an adapter is trained on it.
    run = drafted(cast, PreferenceDataset.objects.get(), policy, options=QUICK)
    looking_over.check_run(run.pk)
    run.refresh_from_db()
    assert run.findings["problems"] == []
    launch_draft(run=run, user=cast.researcher, accept_truncation=True)
    worker.run_training(run.pk)
    run.refresh_from_db()
    assert run.status == WorkStatus.SUCCEEDED, run.error
    made = Checkpoint.objects.get(run=run)
    assert (made.base, made.all_weights) == (policy, False)
    assert made.contestants.get().decoding == contestant.decoding
    assert weights_of(made).is_adapter
