"""What two contestants wrote to the same prompts."""

from dataclasses import dataclass

from django.db.models import Exists, OuterRef, QuerySet

from annotation.models import Completion, Contestant, Judgment, Project, Prompt
from annotation.rendering import safe_html
from annotation.selectors.win_rates import HeadToHead, head_to_head

MOST_SHOWN = 3  # completions of each contestant to one prompt


@dataclass(frozen=True)
class Side:
    """One contestant's completions to a prompt, and how many more there are."""

    texts: list[str]
    more: int

    @property
    def html(self) -> list[str]:
        return [safe_html(text) for text in self.texts]


def shared_prompts(project: Project, a: Contestant, b: Contestant, *, split: str = "") -> QuerySet[Prompt]:
    """Prompts that both have answered."""

    def answered(contestant: Contestant) -> Exists:
        return Exists(Completion.objects.filter(prompt=OuterRef("pk"), contestant=contestant))

    prompts = project.prompts.filter(answered(a), answered(b)).order_by("pk")
    return prompts.filter(split=split) if split else prompts


def sides(
    prompts: list[Prompt], contestants: tuple[Contestant, Contestant]
) -> list[tuple[Prompt, list[Side]]]:
    """For each prompt what each of the two contestants wrote, the newest samples first."""
    texts: dict[tuple[int, int], list[str]] = {}
    rows = Completion.objects.filter(prompt__in=prompts, contestant__in=contestants).order_by("-sample_index")
    for prompt_id, contestant_id, text in rows.values_list("prompt_id", "contestant_id", "text"):
        texts.setdefault((prompt_id, contestant_id), []).append(text)
    return [
        (prompt, [_side(texts.get((prompt.pk, contestant.pk), [])) for contestant in contestants])
        for prompt in prompts
    ]


def _side(texts: list[str]) -> Side:
    different = list(dict.fromkeys(texts))
    return Side(texts=different[:MOST_SHOWN], more=max(0, len(different) - MOST_SHOWN))


def figures(project: Project, a: Contestant, b: Contestant) -> list[HeadToHead]:
    """The head-to-head of each source of judgments that has any: people first, simulated annotators apart."""
    found = [head_to_head(project=project, a=a, b=b, source=source) for source in Judgment.Source.values]
    return [result for result in found if result.win_rate.judgments]
