"""What goes into the annotator's API and comes out of it. Ids of assignments and positions, nothing else."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from annotation.models import Judgment, Report
from annotation.models.projects import ASPECT_POINTS
from annotation.services.reports import MOST_REPORT
from annotation.submissions import Note, Submission

REASON = {"max_length": 2000, "allow_blank": True, "default": ""}

# --- what comes in ---


class ClaimInput(serializers.Serializer):
    prefetch = serializers.BooleanField(default=False)
    holding = serializers.UUIDField(required=False, allow_null=True, default=None)


class NoteInput(serializers.Serializer):
    """What is said of the completion at a position beside its rank."""

    position = serializers.IntegerField(min_value=1, max_value=8)
    flags = serializers.ListField(child=serializers.CharField(max_length=30), max_length=9, default=list)
    aspects = serializers.DictField(
        child=serializers.IntegerField(min_value=1, max_value=ASPECT_POINTS), default=dict
    )
    comment = serializers.CharField(allow_blank=True, default="", trim_whitespace=False)
    better = serializers.CharField(
        allow_blank=True, default="", trim_whitespace=False, help_text="An edited answer, to be reviewed."
    )


class SubmitInput(serializers.Serializer):
    submission_key = serializers.UUIDField()
    outcome = serializers.ChoiceField(
        choices=[
            Judgment.Outcome.RANKED,
            Judgment.Outcome.ALL_BAD,
            Judgment.Outcome.CANNOT_JUDGE,
            Judgment.Outcome.DEMONSTRATED,
        ]
    )
    ranks = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=8),
        max_length=8,
        default=list,
        help_text="The rank of the completion at each position; 1 is best, equal ranks are a tie.",
    )
    strength = serializers.IntegerField(
        required=False, allow_null=True, default=None, help_text="Of a pair: 1 slightly better, and up."
    )
    notes = NoteInput(many=True, default=list)
    text = serializers.CharField(
        allow_blank=True, default="", trim_whitespace=False, help_text="Of a demonstration: the answer."
    )
    reason = serializers.CharField(**REASON)
    active_seconds = serializers.FloatField(min_value=0, default=0.0)


class ReviseInput(SubmitInput):
    replaces = serializers.UUIDField(help_text="The submission key of the judgment that is revised.")


class WithdrawInput(serializers.Serializer):
    submission_key = serializers.UUIDField()
    reason = serializers.CharField(**REASON)


class SkipInput(serializers.Serializer):
    reason = serializers.CharField(**REASON)


class ReportInput(serializers.Serializer):
    category = serializers.ChoiceField(choices=Report.Category.choices)
    text = serializers.CharField(max_length=MOST_REPORT, allow_blank=True, default="")


class ProgressInput(serializers.Serializer):
    since = serializers.DateTimeField(required=False, default=None)


# --- what goes out ---


class MessageOutput(serializers.Serializer):
    role = serializers.CharField()
    text = serializers.CharField()
    html = serializers.CharField(help_text="The text as cleaned HTML.")


class ShownOutput(serializers.Serializer):
    position = serializers.IntegerField()
    text = serializers.CharField()
    html = serializers.CharField()


class RoundOutput(serializers.Serializer):
    name = serializers.CharField()
    rehearsal = serializers.BooleanField()


class PromptOutput(serializers.Serializer):
    messages = MessageOutput(many=True)


class AskedOutput(serializers.Serializer):
    """What the project asks for beside the ranking."""

    strength_levels = serializers.IntegerField()
    flags = serializers.ListField(child=serializers.CharField())
    aspects = serializers.ListField(child=serializers.CharField())


class BoardOutput(serializers.Serializer):
    assignment = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=["ranking", "demonstration"])
    round = RoundOutput()
    prompt = PromptOutput()
    sensitive = serializers.ListField(
        child=serializers.CharField(), help_text="To be blurred until asked for."
    )
    completions = ShownOutput(many=True)
    asked = AskedOutput()
    guideline = serializers.IntegerField(allow_null=True, help_text="The newest version.")
    lease_until = serializers.DateTimeField()
    lease_seconds = serializers.FloatField(help_text="Until then, from now: clocks differ.")
    draft = serializers.JSONField(allow_null=True)
    judgment = serializers.JSONField(allow_null=True, help_text="What you sent, once you have.")
    revisable_until = serializers.DateTimeField(allow_null=True)


class RecordedOutput(serializers.Serializer):
    recorded = serializers.BooleanField()
    counted = serializers.BooleanField(help_text="False: it came late, and somebody had taken the place.")


class LeaseOutput(serializers.Serializer):
    lease_until = serializers.DateTimeField()
    lease_seconds = serializers.FloatField()


class RoundProgressOutput(serializers.Serializer):
    name = serializers.CharField()
    filled = serializers.IntegerField()
    places = serializers.IntegerField()


class ProgressOutput(serializers.Serializer):
    done_by_me = serializers.IntegerField()
    done_today = serializers.IntegerField()
    left = serializers.IntegerField(help_text="Comparisons that wait for you.")
    rounds = RoundProgressOutput(many=True)


def submission_of(values: Mapping[str, Any]) -> Submission:
    """The validated body of a submit or a revision as the services take it."""
    given = {name: value for name, value in values.items() if name not in ("notes", "replaces")}
    return Submission(**given, notes=[Note(**note) for note in values["notes"]])
