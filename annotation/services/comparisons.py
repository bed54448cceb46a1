"""Opening a round's comparisons with their slots, and ending its ranking."""

from django.db import connection, transaction
from django.db.models import Max, Q, Value
from django.db.models.functions import MD5, Concat

from annotation.grouping import Candidate, group_candidates
from annotation.models import (
    Assignment,
    Comparison,
    ComparisonCompletion,
    Completion,
    Membership,
    Prompt,
    Round,
    Slot,
)
from annotation.models.rounds import SLOT_STRIDE


@transaction.atomic
def open_comparisons(*, round: Round) -> int:
    """Make the comparisons and slots of a round from its completions; returns how many comparisons it has.

    In a demonstration round that is one for each prompt, with nothing to rank. Run twice it adds nothing: it does its
    work only while the round has no comparison.
    """
    Round.objects.select_for_update().get(pk=round.pk)
    if round.comparisons.exists():
        return round.comparisons.count()
    opened = _demonstrations(round) if round.is_demonstration else _groups(round)
    add_comparisons(
        round=round,
        comparisons=[comparison for comparison, _ in opened],
        groups=[group for _, group in opened],
    )
    return len(opened)


def _demonstrations(round: Round) -> list[tuple[Comparison, list[int]]]:
    """One comparison for each prompt, with no completions."""
    kind = Comparison.Kind.DEMONSTRATION
    prompts = round.prompts.order_by("pk").values_list("pk", flat=True)
    return [
        (Comparison(round=round, prompt_id=prompt, ordinal=ordinal, kind=kind), [])
        for ordinal, prompt in enumerate(prompts, start=1)
    ]


def _groups(round: Round) -> list[tuple[Comparison, list[int]]]:
    """Comparisons of what the round's contestants wrote, each with the ids of its completions."""
    by_prompt: dict[int, list[Candidate]] = {}
    completions = Completion.objects.filter(
        prompt__rounds=round,
        contestant__rounds=round,
        sample_index__gte=round.first_sample,
        sample_index__lt=round.first_sample + round.samples_per_contestant,
    ).exclude(text="")
    for row in completions.values_list("prompt_id", "pk", "contestant_id", "sample_index", "text"):
        by_prompt.setdefault(row[0], []).append(Candidate(*row[1:]))

    opened: list[tuple[Comparison, list[int]]] = []
    for prompt_id in sorted(by_prompt):
        for group in group_candidates(by_prompt[prompt_id], size=round.completions_per_comparison).groups:
            opened.append((Comparison(round=round, prompt_id=prompt_id, ordinal=len(opened) + 1), group))
    return opened


def add_comparisons(*, round: Round, comparisons: list[Comparison], groups: list[list[int]]) -> None:
    """Save comparisons, the completions of each (`groups[i]` are ids for `comparisons[i]`), and `overlap` slots."""
    Comparison.objects.bulk_create(comparisons, batch_size=2000)
    ComparisonCompletion.objects.bulk_create(
        (
            ComparisonCompletion(comparison=comparison, completion_id=completion_id)
            for comparison, group in zip(comparisons, groups, strict=True)
            for completion_id in group
        ),
        batch_size=5000,
    )
    Slot.objects.bulk_create(
        (
            Slot(
                round=round,
                comparison=comparison,
                number=number,
                position=number * SLOT_STRIDE + comparison.ordinal,
            )
            for comparison in comparisons
            for number in range(1, round.overlap + 1)
        ),
        batch_size=5000,
    )


def ranking_is_over(*, round: Round) -> bool:
    """Whether every slot is done, or those left can't be filled by any annotator the project has.

    A project without annotators waits for them: a round is not over because nobody has come yet.
    """
    left = Slot.objects.filter(round=round)
    if left.filter(state=Slot.State.HELD).exists():
        return False
    open_slots = left.filter(state=Slot.State.OPEN)
    if not open_slots.exists():
        return True
    # Reviewers, researchers and admins may rank too, but nobody counts on it.
    annotators = list(
        Membership.objects.filter(
            project=round.project_id,
            role=Membership.Role.ANNOTATOR,
            user__is_active=True,
            user__is_simulated=round.is_rehearsal,
        ).values_list("user_id", flat=True)
    )
    if not annotators:
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT EXISTS (
                SELECT FROM annotation_slot slot CROSS JOIN unnest(%s::bigint[]) AS annotator
                WHERE slot.round_id = %s AND slot.state = 'open'
                  AND (slot.reserved_for_id IS NULL OR slot.reserved_for_id = annotator)
                  AND NOT EXISTS (
                      SELECT FROM annotation_assignment done
                      WHERE done.comparison_id = slot.comparison_id AND done.annotator_id = annotator
                        AND done.state IN ('submitted', 'skipped'))
                  AND NOT EXISTS (
                      SELECT FROM annotation_membership member
                      JOIN annotation_comparison comparison ON comparison.id = slot.comparison_id
                      JOIN annotation_prompt prompt ON prompt.id = comparison.prompt_id
                      WHERE member.project_id = %s AND member.user_id = annotator
                        AND member.opted_out <> '{}' AND prompt.tags && member.opted_out))
            """,
            [annotators, round.pk, round.project_id],
        )
        return not cursor.fetchone()[0]


@transaction.atomic
def close_slots(*, round: Round) -> int:
    """End ranking: close what is open or held, and return how many slots that were.

    Whoever works on a held one can still send it: it is kept as surplus.
    """
    held = Q(slot__round=round, slot__state=Slot.State.HELD)
    # Assignments before slots: the order in which every other writer locks them.
    open_assignments = Assignment.objects.filter(held, state=Assignment.State.OPEN).select_for_update(
        of=("self",)
    )
    Assignment.objects.filter(pk__in=[row.pk for row in open_assignments]).update(
        state=Assignment.State.EXPIRED
    )
    unfilled = Slot.objects.filter(round=round, state__in=[Slot.State.OPEN, Slot.State.HELD])
    return unfilled.update(state=Slot.State.CLOSED, assignment=None)


def freeze_prompts(*, round: Round) -> int:
    """Choose the round's prompts, by its seed, and where its samples begin; returns how many prompts it has.

    Run twice it changes nothing.
    """
    if round.first_sample is None:
        taken = Completion.objects.filter(contestant__rounds=round).aggregate(last=Max("sample_index"))[
            "last"
        ]
        round.first_sample = 0 if taken is None else taken + 1
        round.save(update_fields=["first_sample"])
    if not round.prompts.exists():
        chosen: list[Prompt] = []
        for split, most in (
            (Prompt.Split.TRAIN, round.train_prompts),
            (Prompt.Split.HELD_OUT, round.held_out_prompts),
        ):
            # Ordered by a hash of seed and content: random, yet the same on every machine.
            draw = MD5(Concat(Value(f"{round.seed}-"), "content_hash"))
            chosen += round.project.prompts.filter(split=split).order_by(draw)[:most]
        round.prompts.set(chosen)
    return round.prompts.count()
