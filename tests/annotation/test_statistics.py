"""Win rates: the formula against a slow plain twin, and which judgments count."""

import random
import statistics
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.models import Comparison, Completion, Contestant, Judgment, Prompt, Round
from annotation.selectors.win_rates import head_to_head, mean_score
from annotation.services.claims import claim_comparison
from annotation.services.comparisons import add_comparisons
from annotation.services.judgments import submit_judgment
from annotation.services.members import add_member, open_project
from annotation.statistics import Observation, win_rate
from annotation.submissions import Submission
from rankloop.accounts.models import User
from tests.cast import Cast, add_contestants, assemble

observations = st.lists(
    st.builds(
        Observation,
        prompt=st.integers(1, 6),
        annotator=st.integers(1, 4),
        score=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    ),
    min_size=1,
    max_size=40,
)


def slow_interval(seen: list[Observation], *, resamples: int, seed: int) -> tuple[float, float]:
    """The same bootstrap with lists: draw prompts, draw annotators, and repeat each judgment as often as both say."""
    rng = random.Random(seed)
    prompts, annotators = sorted({o.prompt for o in seen}), sorted({o.annotator for o in seen})
    rates: list[float] = []
    while len(rates) < resamples:
        drawn_prompts = [rng.choice(prompts) for _ in prompts]
        drawn_annotators = [rng.choice(annotators) for _ in annotators]
        scores = [
            o.score
            for prompt in drawn_prompts
            for annotator in drawn_annotators
            for o in seen
            if (o.prompt, o.annotator) == (prompt, annotator)
        ]
        if scores:
            rates.append(sum(scores) / len(scores))
    cuts = statistics.quantiles(rates, n=40, method="inclusive")
    return cuts[0], cuts[-1]


def some_observations(prompts: int, annotators: int, rate: float, seed: int) -> list[Observation]:
    rng = random.Random(seed)
    return [
        Observation(prompt=p, annotator=rng.randrange(annotators), score=float(rng.random() < rate))
        for p in range(prompts)
        for _ in range(2)
    ]


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_the_interval_is_that_of_a_slow_plain_twin(rate):
    seen = some_observations(prompts=14, annotators=6, rate=rate, seed=3)
    fast = win_rate(seen, resamples=6000)
    low, high = slow_interval(seen, resamples=3000, seed=5)
    assert fast.rate == pytest.approx(sum(o.score for o in seen) / len(seen))
    # Two different draws of resamples: the ends agree to about two standard errors of a quantile.
    assert (fast.low, fast.high) == pytest.approx((low, high), abs=0.03)


def test_judgments_that_hang_together_make_the_interval_wider():
    """Twenty judgments of one prompt are not twenty prompts."""
    alone = [Observation(prompt=n, annotator=n, score=float(n % 2)) for n in range(40)]
    together = [Observation(prompt=n // 10, annotator=n, score=float(n // 10 % 2)) for n in range(40)]
    apart, clustered = win_rate(alone), win_rate(together)
    assert apart.rate == clustered.rate == 0.5
    assert clustered.high - clustered.low > 1.5 * (apart.high - apart.low)


@given(observations)
def test_the_rate_lies_in_its_interval_and_everything_is_counted(seen):
    found = win_rate(seen, resamples=200)
    assert found.rate == pytest.approx(sum(o.score for o in seen) / len(seen))
    assert 0 <= found.low <= found.high <= 1
    assert min(o.score for o in seen) <= found.low and found.high <= max(o.score for o in seen)
    assert found.judgments == len(seen)
    assert found.prompts == len({o.prompt for o in seen})
    assert found.annotators == len({o.annotator for o in seen})


@given(observations)
def test_seen_from_the_other_side_it_is_the_mirror_image(seen):
    mirrored = [Observation(o.prompt, o.annotator, 1 - o.score) for o in seen]
    one, other = win_rate(seen, resamples=200), win_rate(mirrored, resamples=200)
    assert (other.rate, other.low, other.high) == pytest.approx((1 - one.rate, 1 - one.high, 1 - one.low))
    assert one.is_clear == other.is_clear


def test_it_is_clear_only_with_an_interval_beside_a_half():
    always = [Observation(prompt=n, annotator=1, score=1.0) for n in range(10)]
    assert win_rate(always).is_clear
    assert not win_rate([*always[:5], *(Observation(n, 1, 0.0) for n in range(5, 10))]).is_clear
    assert not win_rate([]).is_clear


def test_without_observations_there_is_no_rate():
    assert (win_rate([]).rate, win_rate([]).low, win_rate([]).judgments) == (None, None, 0)


def test_the_same_observations_give_the_same_interval_and_order_does_not_matter():
    seen = some_observations(prompts=10, annotators=3, rate=0.6, seed=1)
    assert win_rate(seen) == win_rate(seen)
    assert win_rate(seen, seed=1).rate == win_rate(seen[::-1], seed=1).rate


@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=4), st.lists(st.integers(1, 8), min_size=1, max_size=4)
)
def test_the_score_of_a_comparison_is_the_share_of_pairs_won(a, b):
    won, tied = sum(x < y for x in a for y in b), sum(x == y for x in a for y in b)
    assert mean_score(a, b) == pytest.approx((won + tied / 2) / (len(a) * len(b)))
    assert mean_score(a, b) + mean_score(b, a) == pytest.approx(1)


# --- which judgments count ---


@pytest.fixture
def cast(db) -> Cast:
    return assemble()


class Duel:
    """Two contestants who meet on prompts of a chosen split; judgments are made through the services."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.a, self.b = add_contestants(cast, "new", "old")
        self.rounds: dict[str, Round] = {}

    def round(self, audience: str = "people", **changes) -> Round:
        number = self.cast.project.rounds.count() + 1
        values = {"status": "ranking", "overlap": 1, "completions_per_comparison": 2, **changes}
        return Round.objects.create(
            project=self.cast.project, number=number, name=f"Round {number}", audience=audience, **values
        )

    def meet(
        self,
        annotator: User,
        *,
        outcome: str = "ranked",
        ranks: tuple[int, int] = (1, 2),
        split: str = "held_out",
        round: Round | None = None,
        rivals: tuple[Contestant, Contestant] | None = None,
    ) -> Judgment:
        """One comparison of the two, judged: `ranks` are of `a` and of `b`."""
        round = round or self.round("rehearsal" if annotator.is_simulated else "people")
        prompt = Prompt.objects.create(
            project=self.cast.project,
            messages=[{"role": "user", "content": "Why?"}],
            content_hash=uuid.uuid4().hex,
            split=split,
        )
        pair = [
            Completion.objects.create(
                prompt=prompt, contestant=contestant, sample_index=0, text=contestant.name
            )
            for contestant in rivals or (self.a, self.b)
        ]
        ordinal = round.comparisons.count() + 1
        add_comparisons(
            round=round,
            comparisons=[Comparison(round=round, prompt=prompt, ordinal=ordinal)],
            groups=[[completion.pk for completion in pair]],
        )
        assignment = claim_comparison(project=self.cast.project, annotator=annotator)
        rank_of = dict(zip([completion.pk for completion in pair], ranks, strict=True))
        shown = [rank_of[pk] for pk in assignment.shown_order] if outcome == "ranked" else []
        return submit_judgment(
            assignment=assignment,
            submission=Submission(uuid.uuid4(), outcome, shown, reason="No idea."),
        )

    def figures(self, **options):
        return head_to_head(project=self.cast.project, a=self.a, b=self.b, **options)


def test_wins_losses_ties_and_all_bad_are_counted_for_each_side(cast):
    duel = Duel(cast)
    duel.meet(cast.anna, ranks=(1, 2))
    duel.meet(cast.ben, ranks=(1, 2))
    duel.meet(cast.anna, ranks=(2, 1))
    duel.meet(cast.anna, ranks=(1, 1))
    duel.meet(cast.ben, outcome="all_bad")
    duel.meet(cast.anna, outcome="cannot_judge")
    found = duel.figures()
    assert found.win_rate.rate == pytest.approx((1 + 1 + 0 + 0.5 + 0.5) / 5)
    assert (found.comparisons, found.ties, found.all_bad) == (5, 1, 1)
    assert (found.win_rate.judgments, found.win_rate.prompts, found.win_rate.annotators) == (5, 5, 2)
    mirrored = head_to_head(project=cast.project, a=duel.b, b=duel.a)
    assert mirrored.win_rate.rate == pytest.approx(1 - found.win_rate.rate)
    told = found.as_json()
    assert (told["against"], told["source"], told["rate"]) == ("old", "person", found.win_rate.rate)


def test_prompts_that_were_trained_on_never_count(cast):
    duel = Duel(cast)
    duel.meet(cast.anna, ranks=(1, 2), split="train")
    assert duel.figures().win_rate.rate is None
    duel.meet(cast.anna, ranks=(2, 1), split="held_out")
    assert duel.figures().win_rate.rate == 0.0


def test_people_and_simulated_annotators_never_meet_in_one_figure(cast):
    duel = Duel(cast)
    robot = User.objects.create(username="robot", is_simulated=True)
    add_member(project=cast.project, user=robot, role="annotator")
    duel.meet(cast.anna, ranks=(1, 2))
    duel.meet(robot, ranks=(2, 1))
    assert duel.figures().win_rate.rate == 1.0
    assert duel.figures(source="rehearsal").win_rate.rate == 0.0
    assert [duel.figures(source=s).win_rate.judgments for s in ("person", "rehearsal")] == [1, 1]


def test_surplus_superseded_and_withdrawn_judgments_do_not_count(cast):
    duel = Duel(cast)
    revised = duel.meet(cast.anna, ranks=(1, 2))
    withdrawn = duel.meet(cast.anna, ranks=(1, 2))
    kept = duel.meet(cast.ben, ranks=(2, 1))

    def add(of: Judgment, **changes) -> None:
        names = [field.attname for field in Judgment._meta.concrete_fields if field.attname != "id"]
        values = {name: getattr(of, name) for name in names} | {"submission_key": uuid.uuid4()}
        Judgment.objects.create(**{**values, **changes})

    add(revised, supersedes_id=revised.pk, outcome="all_bad")
    add(withdrawn, supersedes_id=withdrawn.pk, outcome="withdrawn")
    found = duel.figures()
    assert (found.win_rate.judgments, found.all_bad) == (2, 1)
    assert found.win_rate.rate == pytest.approx((0.5 + 0) / 2)
    assert kept.is_counted
    surplus = duel.meet(cast.anna, ranks=(1, 2))
    late = surplus.assignment
    second = late.__class__.objects.create(
        comparison=surplus.comparison,
        annotator=cast.ben,
        state="submitted",
        lease_until=late.lease_until,
        claimed_at=late.claimed_at,
        position=1,
        shown_order=late.shown_order,
    )
    before = duel.figures().win_rate
    add(surplus, slot_id=None, assignment_id=second.pk, annotator_id=cast.ben.pk, outcome="all_bad")
    assert duel.figures().win_rate == before


def test_a_figure_can_be_narrowed_to_rounds_and_never_leaves_the_project(cast):
    duel = Duel(cast)
    first, second = duel.round(), duel.round()
    duel.meet(cast.anna, ranks=(1, 2), round=first)
    duel.meet(cast.anna, ranks=(2, 1), round=second)
    assert duel.figures(rounds=[first]).win_rate.rate == 1.0
    assert duel.figures(rounds=[second]).win_rate.rate == 0.0
    assert duel.figures().win_rate.rate == 0.5
    other = open_project(slug="coffee", name="Coffee", user=cast.admin)
    assert head_to_head(project=other, a=duel.a, b=duel.b).win_rate.rate is None


def test_only_comparisons_that_hold_both_contestants_count(cast):
    duel = Duel(cast)
    third = add_contestants(cast, "third")[0]
    duel.meet(cast.anna, ranks=(1, 2), rivals=(duel.a, third))
    duel.meet(cast.anna, ranks=(1, 2), rivals=(third, duel.b))
    assert duel.figures().win_rate.rate is None
    duel.meet(cast.anna, ranks=(2, 1))
    assert (duel.figures().win_rate.rate, duel.figures().comparisons) == (0.0, 1)
