"""A project in which all that a person, an import or a model can supply is hostile: each text by all that fit it."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from annotation.models import (
    Comparison,
    Completion,
    Contestant,
    Guideline,
    Membership,
    Project,
    Prompt,
    Round,
)
from annotation.services.claims import claim_comparison, skip_comparison
from annotation.services.comparisons import add_comparisons
from annotation.services.invitations import open_invitation
from annotation.services.judgments import submit_judgment, withdraw_judgment
from annotation.services.reports import report_comparison
from annotation.submissions import Note, Rules, Submission
from rankloop.accounts.models import ApiToken, User
from tests.cast import Cast
from tests.e2e.hostile import PAYLOADS, fitting
from training.models import (
    Checkpoint,
    DatasetMember,
    Evaluation,
    GenerationJob,
    PreferenceDataset,
    RunInput,
    RunMetric,
    TrainingRun,
    WorkStatus,
)
from training.worker import attempt_folder

EACH = 8  # completions of a comparison, messages of a prompt
ROLES = ["system", *["user", "assistant"] * 3, "user"]
# Where one field holds many: one after the other, the unclosed ones too.
ALL = "\n\n".join(fitting(400))


def batches(payloads: list[str], size: int) -> Iterator[list[str]]:
    """All payloads in groups of exactly that size; the last is filled up from the start."""
    for start in range(0, len(payloads), size):
        group = payloads[start : start + size]
        yield group + payloads[: size - len(group)]


GROUPS = list(batches(PAYLOADS, EACH))
# A pattern is made of all leak phrases together, which for hundreds of them takes seconds.
LEAKS = [f"§{payload}" for payload in fitting(99)[::8]]


@dataclass
class Stage:
    """What the pages' addresses name."""

    cast: Cast
    ranking: Round
    addresses: dict[str, object]  # by the name of an address's part
    runs: list[object]  # of those, to be laid over each other


def set_up(cast: Cast) -> Stage:
    """Fill the cast's project. Judged by admin (notes, better answers, reasons), skipped and reported by ben."""
    _rename(cast)
    _add_people(cast)
    contestants = _add_contestants(cast.project)
    ranking = _open_round(cast, contestants)
    _open_pairs(cast, contestants)
    writing = _open_demonstrations(cast)
    _judge(cast)
    _write(cast, writing)
    _complain(cast)
    invitation, token = open_invitation(
        project=cast.project, user=cast.admin, role="annotator", days=1, places=1
    )
    addresses = {
        "slug": cast.project.slug,
        "number": ranking.number,
        "token": token,
        "invitation": invitation.pk,
        "member": cast.project.memberships.get(user=cast.ben).pk,
        "token_id": cast.admin.api_tokens.first().pk,
        "assignment": cast.admin.assignments.filter(state="submitted").earliest("claimed_at").pk,
        "split": "train",
        "version": 1,
        **_add_training(cast, ranking, contestants),
    }
    runs = TrainingRun.objects.order_by("created_at").values_list("pk", flat=True)[:4]
    return Stage(
        cast, ranking, addresses, [addresses["run"], *(pk for pk in runs if pk != addresses["run"])][:4]
    )


def _rename(cast: Cast) -> None:
    project = cast.project
    project.name, project.description = "'\"><img src=x onerror=__xss(1)>", ALL
    project.sensitive_categories = fitting(60)
    project.leak_phrases = LEAKS
    project.save()
    for version, texts in enumerate((PAYLOADS, PAYLOADS[::-1]), 2):
        Guideline.objects.create(
            project=project, version=version, text="\n\n".join(texts)[:60_000], created_by=cast.admin
        )
    project.memberships.update(guideline_read=2)  # so that what changed since is shown
    others = Project.objects.bulk_create(
        Project(slug=f"other-{number}", name=name, description=PAYLOADS[-number])
        for number, name in enumerate(fitting(120), 1)
    )
    Membership.objects.bulk_create(Membership(project=p, user=cast.admin, role="admin") for p in others)


def _add_people(cast: Cast) -> None:
    names = fitting(150)
    people = User.objects.bulk_create(
        # Half of them by their full name: `str(user)` prefers it.
        User(username=f"u{n}", first_name=name) if n % 2 else User(username=name)
        for n, name in enumerate(names)
    )
    Membership.objects.bulk_create(
        Membership(project=cast.project, user=user, role="annotator") for user in people
    )
    for user, name in ((cast.admin, names[10]), (cast.ben, names[11]), (cast.anna, names[12])):
        user.first_name = name
        user.save()
    ApiToken.objects.bulk_create(
        ApiToken(user=cast.admin, name=name, digest=f"{n:064x}") for n, name in enumerate(fitting(80))
    )


def _add_contestants(project: Project) -> list[Contestant]:
    return Contestant.objects.bulk_create(
        Contestant(
            project=project,
            name=name,
            system_prompt=PAYLOADS[n],
            decoding={"temperature": PAYLOADS[-n], "max_new_tokens": PAYLOADS[n]},
            digest=f"{n:064x}",
        )
        for n, name in enumerate(fitting(120))
    )


def _add_round(cast: Cast, **values: object) -> Round:
    return Round.objects.create(
        project=cast.project,
        number=cast.project.rounds.count() + 1,
        created_by=cast.admin,
        **{"name": "<svg onload=__xss(2)>", "status": Round.Status.RANKING, "failure": ALL, **values},
    )


def _add_prompts(cast: Cast, round: Round, first: str) -> list[Prompt]:
    """Every payload in a message; which roles they have shifts with each prompt."""
    prompts = Prompt.objects.bulk_create(
        Prompt(
            project=cast.project,
            messages=[
                {"role": role, "content": payload}
                for role, payload in zip(ROLES, group[n % EACH :] + group[: n % EACH], strict=True)
            ],
            content_hash=f"{first}{n:063x}",
            split=("train", "held_out")[n % 2],
            tags=fitting(60)[n * EACH : (n + 1) * EACH],
            source=fitting(200)[n],
            created_by=cast.admin,
        )
        for n, group in enumerate(GROUPS)
    )
    round.prompts.set(prompts)
    return prompts


def _open_round(cast: Cast, contestants: list[Contestant]) -> Round:
    round = _add_round(cast, overlap=3, completions_per_comparison=EACH)
    round.contestants.set(contestants)
    prompts = _add_prompts(cast, round, "a")
    completions = Completion.objects.bulk_create(
        # Every third says a leak phrase, too, which is masked.
        Completion(prompt=prompt, contestant=contestants[n % 2], sample_index=n, text=text)
        for prompt, group in zip(prompts, GROUPS, strict=True)
        for n, text in enumerate(
            f"{payload}\n\n{LEAKS[n]}" if n % 3 == 2 else payload for n, payload in enumerate(group)
        )
    )
    add_comparisons(
        round=round,
        comparisons=[Comparison(round=round, prompt=p, ordinal=n) for n, p in enumerate(prompts, 1)],
        groups=[[row.pk for row in rows] for rows in batches(completions, EACH)],
    )
    for name in fitting(120):
        _add_round(cast, name=name, status=Round.Status.CLOSED, failure="")
    return round


def _open_pairs(cast: Cast, contestants: list[Contestant]) -> None:
    round = _add_round(cast, name=fitting(120)[20], overlap=1, priority=-1, completions_per_comparison=2)
    prompts = _add_prompts(cast, round, "c")[:2]
    texts = [ALL, "\n\n".join(fitting(400)[::-1])]
    rows = [
        Completion.objects.create(prompt=prompt, contestant=contestants[n], sample_index=100, text=text)
        for prompt in prompts
        for n, text in enumerate(texts)
    ]
    add_comparisons(
        round=round,
        comparisons=[Comparison(round=round, prompt=p, ordinal=n) for n, p in enumerate(prompts, 1)],
        groups=[[row.pk for row in pair] for pair in batches(rows, 2)],
    )


def _open_demonstrations(cast: Cast) -> Round:
    round = _add_round(cast, kind=Round.Kind.DEMONSTRATION, overlap=2, priority=-2)
    prompts = _add_prompts(cast, round, "b")[:5]
    kind = Comparison.Kind.DEMONSTRATION
    add_comparisons(
        round=round,
        comparisons=[
            Comparison(round=round, prompt=p, ordinal=n, kind=kind) for n, p in enumerate(prompts, 1)
        ],
        groups=[[] for _ in prompts],
    )
    return round


def _judge(cast: Cast) -> None:
    """Every payload as a comment, a better answer, a flag, an aspect and a reason, as far as each field is long."""
    for n, group in enumerate(GROUPS):
        project = name_flags(cast.project, n)
        assignment = claim_comparison(project=project, annotator=cast.admin)
        # Better answers hold four each, or reviewing them would take all day.
        better = {1: "\n\n".join(group[:4]), 5: "\n\n".join(group[4:])}
        notes = [
            Note(
                position,
                project.flags,
                dict.fromkeys(project.aspects, 3),
                text[:2000],
                better.get(position, "")[:20_000],
            )
            for position, text in enumerate(group, 1)
        ]
        outcome = ("ranked", "all_bad", "cannot_judge")[n % 3]
        ranks = range(1, EACH + 1) if outcome == "ranked" else ()
        submission = Submission(
            uuid.uuid4(), outcome, tuple(ranks), notes=notes, reason="\n".join(group)[:2000] or "x"
        )
        submit_judgment(assignment=assignment, submission=submission, rules=Rules.of(project))
        if n % 10 == 9:
            withdraw_judgment(
                assignment=assignment, submission_key=uuid.uuid4(), reason="\n".join(group)[:2000]
            )
    Completion.objects.filter(pk__in=_every_third_answer()).update(
        review="declined", reviewed_by=cast.admin, reviewed_at="2026-11-25T00:00Z", review_note=ALL
    )


def _every_third_answer() -> list[int]:
    return list(Completion.objects.filter(review="waiting").order_by("pk").values_list("pk", flat=True))[::3]


def name_flags(project: Project, number: int) -> Project:
    """Give the project its next flags and aspects, which fit few payloads at a time."""
    flags, aspects = list(batches(fitting(30), 9)), list(batches(fitting(40), 6))
    project.flags, project.aspects = flags[number % len(flags)], aspects[number % len(aspects)]
    project.save(update_fields=["flags", "aspects"])
    return project


def _write(cast: Cast, writing: Round) -> None:
    """The ideal answers; then the round of demonstrations waits behind the others again."""
    Round.objects.filter(pk=writing.pk).update(priority=1)
    for text in (ALL[:20_000], *PAYLOADS[-3:]):
        assignment = claim_comparison(project=cast.project, annotator=cast.admin)
        submit_judgment(assignment=assignment, submission=Submission(uuid.uuid4(), "demonstrated", text=text))
    Round.objects.filter(pk=writing.pk).update(priority=-2)


def _complain(cast: Cast) -> None:
    for n, group in enumerate(GROUPS):
        assignment = claim_comparison(project=cast.project, annotator=cast.ben)
        if n % 3 == 0:
            skip_comparison(assignment=assignment, reason="\n".join(group)[:2000])
            continue
        report = report_comparison(assignment=assignment, category="other", text="\n".join(group)[:2000])
        if n % 3 == 1:
            report.resolved_at, report.resolved_by = assignment.claimed_at, cast.admin
            report.resolution = "\n".join(group)
            report.save()


def _add_training(cast: Cast, round: Round, contestants: list[Contestant]) -> dict[str, object]:
    project = cast.project
    base = Checkpoint.objects.create(project=project, name=fitting(120)[3], kind="base", digest="0" * 64)
    base.contestants.set(contestants[:20])
    dataset = PreferenceDataset.objects.create(
        project=project, digest="d" * 64, counts={"judgments": ALL[:500]}
    )
    dataset.rounds.set([round])
    DatasetMember.objects.bulk_create(
        DatasetMember(dataset=dataset, judgment=judgment) for judgment in cast.admin.judgments.all()
    )
    work = {"status": WorkStatus.FAILED, "attempt": 1, "error": ALL[:3000], "worker": fitting(200)[5]}
    run, *_ = TrainingRun.objects.bulk_create(
        TrainingRun(
            project=project,
            round=round if n < 3 else None,
            step=name,
            method=name[:20],
            code_version=fitting(60)[n],
            recipe={
                "threads": PAYLOADS[n],
                PAYLOADS[n]: PAYLOADS[-n],
                "loss": ALL,
                "options": {PAYLOADS[n]: PAYLOADS[-n], "beta": ALL[:3000]},
            },
            result={"metrics": {PAYLOADS[n]: PAYLOADS[-n], "stopped": ALL[:300], "kl": [PAYLOADS[n]]}},
            progress={"phase": PAYLOADS[n], "step": PAYLOADS[-n], "of": 1},
            created_by=cast.admin,
            **work,
        )
        for n, name in enumerate(fitting(40))
    )
    RunInput.objects.create(run=run, role="base", checkpoint=base)
    RunInput.objects.create(run=run, role="data", dataset=dataset)
    names = fitting(60)[::4]  # each becomes a chart, which takes its time
    RunMetric.objects.bulk_create(
        RunMetric(run=run, attempt=1, step=step, name=name, value=step) for step in (1, 2) for name in names
    )
    job = GenerationJob.objects.create(round=round, base=base, progress={"phase": ALL[:300]}, **work)
    job.contestants.set(contestants[:50])
    for one in (run, job):
        folder = attempt_folder(one)
        folder.mkdir(parents=True)
        (folder / "log.txt").write_text(ALL[-50_000:])
    Checkpoint.objects.bulk_create(
        Checkpoint(project=project, name=f"{name} {n}", kind="policy", digest=f"{n:064x}", base=base)
        for n, name in enumerate(fitting(116))
    )
    checkpoint = Checkpoint.objects.create(
        project=project,
        name="</title><script>__xss(3)</script>",
        kind="policy",
        digest="c" * 64,
        base=base,
        run=run,
        metrics={"accuracy": 0.7},
    )
    checkpoint.contestants.set(contestants[:50])
    rate = {
        "rate": 0.5,
        "low": 0.4,
        "high": 0.6,
        "against": ALL[:300],
        "accuracy": 0.5,
        "interval": [0.4, 0.6],
    }
    Evaluation.objects.bulk_create(
        Evaluation(
            project=project,
            round=round if n < 20 else None,
            checkpoint=checkpoint,
            suite=suite,
            suite_version="1",
            result=rate,
        )
        for n, suite in enumerate(fitting(200))
    )
    return {"dataset": dataset.pk, "run": run.pk, "job": job.pk, "checkpoint": checkpoint.pk}
