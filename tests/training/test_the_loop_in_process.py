"""The driver carries a round from launch to close, on a tiny random model, step by step in this process."""

import uuid

import pytest

from annotation.models import Completion, Judgment, Round
from annotation.services.claims import claim_comparison
from annotation.services.judgments import submit_judgment
from annotation.submissions import Submission
from tests.cast import Cast, add_prompts, add_simulated, assemble
from training import worker
from training.models import Checkpoint, DatasetMember, Evaluation, GenerationJob, TrainingRun, WorkStatus
from training.services.checkpoints import register_base, register_policy
from training.services.rounds import advance_round, launch_round, open_round

pytestmark = pytest.mark.django_db(transaction=True)

DECODING = {"max_new_tokens": 8}
QUICK = {"steps": 2, "batch_size": 4, "save_steps": 1, "warmup_steps": 0}


def rank_everything(cast: Cast, annotators) -> int:
    """Each annotator ranks by text length until nothing is left for them; returns the number of judgments."""
    made = 0
    for annotator in annotators:
        while (assignment := claim_comparison(project=cast.project, annotator=annotator)) is not None:
            texts = [Completion.objects.get(pk=pk).text for pk in assignment.shown_order]
            order = sorted({len(text) for text in texts})
            ranks = [order.index(len(text)) + 1 for text in texts]
            submit_judgment(
                assignment=assignment,
                submission=Submission(submission_key=uuid.uuid4(), outcome="ranked", ranks=ranks),
            )
            made += 1
    return made


@pytest.mark.slow
def test_a_round_runs_from_launch_to_a_new_contestant(tiny_model, settings):
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
        training_plan=[{"method": "reward", "options": QUICK}, {"method": "dpo", "options": QUICK}],
    )
    launch_round(round=round, user=cast.researcher)

    advance_round(round_id=round.pk)
    job = GenerationJob.objects.get()
    worker.run_generation(job.pk)
    job.refresh_from_db()
    assert job.status == WorkStatus.SUCCEEDED, job.error
    assert Completion.objects.count() == 12 * 2 * 2
    advance_round(round_id=round.pk)
    round.refresh_from_db()
    assert round.status == Round.Status.RANKING, round.failure

    assert rank_everything(cast, simulated) == round.comparisons.count() * 2
    advance_round(round_id=round.pk)
    round.refresh_from_db()
    assert round.failure == ""
    for run in TrainingRun.objects.order_by("created_at"):
        worker.run_training(run.pk)
        run.refresh_from_db()
        assert run.status == WorkStatus.SUCCEEDED, run.error
        assert run.metrics.filter(name="loss").exists()
    advance_round(round_id=round.pk)
    round.refresh_from_db()
    assert (round.status, round.failure) == (Round.Status.CLOSED, "")

    # Lineage, both ways; the simulated judgments are marked.
    assert set(Judgment.objects.values_list("source", flat=True)) == {"rehearsal"}
    assert DatasetMember.objects.count() == Judgment.objects.count()
    policy, reward = Checkpoint.objects.get(kind="policy"), Checkpoint.objects.get(kind="reward")
    assert policy.base == reward.base == base
    assert Evaluation.objects.filter(checkpoint=reward).count() == 1

    # The new checkpoint is back in the queue: a draft against its parent, on held-out prompts only.
    following = Round.objects.get(number=2)
    assert following.status == Round.Status.DRAFT
    assert set(following.contestants.all()) == {plain, policy.contestants.get()}
    launch_round(round=following, user=cast.researcher)
    advance_round(round_id=following.pk)
    worker.run_generation(following.generation_jobs.get().pk)
    advance_round(round_id=following.pk)
    following.refresh_from_db()
    assert (following.status, following.failure) == (Round.Status.RANKING, "")
    assert {prompt.split for prompt in following.prompts.all()} == {"held_out"}
    fresh = Completion.objects.filter(
        prompt__rounds=following, contestant=plain, sample_index__gte=following.first_sample
    )
    assert fresh.count() == following.prompts.count() * 2
    rank_everything(cast, simulated)
    advance_round(round_id=following.pk)
    following.refresh_from_db()
    assert following.status == Round.Status.CLOSED
    assert Evaluation.objects.filter(contestant=policy.contestants.get(), round=following).count() == 1
