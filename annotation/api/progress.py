"""The statistics of a project, as the progress page shows them."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import Role, get_project
from annotation.selectors.progress import AUDIENCES, Source, progress_of_project
from rankloop.api import read_query


class StatisticsInput(serializers.Serializer):
    source = serializers.ChoiceField(
        choices=[str(source) for source in AUDIENCES], default=Source.PERSON.value
    )


class DayOutput(serializers.Serializer):
    day = serializers.DateField(help_text="In UTC.")
    counted = serializers.IntegerField()
    surplus = serializers.IntegerField(help_text="Came when the place was taken; kept, not counted.")
    active_seconds = serializers.FloatField()
    annotators = serializers.IntegerField()


class RoundLeftOutput(serializers.Serializer):
    number = serializers.IntegerField()
    name = serializers.CharField()
    status = serializers.CharField()
    filled = serializers.IntegerField()
    left = serializers.IntegerField(help_text="Places still to be filled.")
    closed = serializers.IntegerField(help_text="Places its ranking ended without.")


class ForecastOutput(serializers.Serializer):
    remaining = serializers.IntegerField()
    on = serializers.DateField(allow_null=True)
    earliest = serializers.DateField(allow_null=True)
    latest = serializers.DateField(allow_null=True)
    per_day = serializers.FloatField(allow_null=True, help_text="Mean of the last days with judgments.")
    days = serializers.IntegerField(help_text="How many days that is the mean of.")
    why_not = serializers.CharField(help_text="Why there is no date; empty when there is one.")


class AnnotatorOutput(serializers.Serializer):
    annotator = serializers.CharField()
    judgments = serializers.IntegerField()
    surplus = serializers.IntegerField()
    today = serializers.IntegerField()
    active_seconds = serializers.FloatField()
    median_seconds = serializers.FloatField(allow_null=True)
    ties = serializers.FloatField(allow_null=True, help_text="Share of the pairs they ranked.")
    all_bad = serializers.FloatField(allow_null=True, help_text="Share of their judgments.")
    cannot_judge = serializers.IntegerField()
    shared_pairs = serializers.IntegerField()
    agreement = serializers.FloatField(allow_null=True, help_text="Share of the shared pairs judged alike.")
    last_judgment = serializers.DateTimeField()


class AgreementOutput(serializers.Serializer):
    alpha = serializers.FloatField(allow_null=True, help_text="Krippendorff's, ordinal.")
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    reading = serializers.CharField()
    share = serializers.FloatField(allow_null=True, help_text="Share of pairs on which two said the same.")
    comparisons = serializers.IntegerField()
    judgments = serializers.IntegerField()
    pairs = serializers.IntegerField()
    annotators = serializers.IntegerField()


class WinRateOutput(serializers.Serializer):
    rate = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    is_clear = serializers.BooleanField(help_text="Whether the interval leaves out 0.5.")
    judgments = serializers.IntegerField()
    prompts = serializers.IntegerField()
    annotators = serializers.IntegerField()


class SkipsOutput(serializers.Serializer):
    reason = serializers.CharField()
    times = serializers.IntegerField()


class StatisticsOutput(serializers.Serializer):
    source = serializers.CharField()
    has_rehearsal = serializers.BooleanField(help_text="Whether simulated annotators have judged here.")
    judgments = serializers.IntegerField(help_text="Newest ones: neither revised nor withdrawn.")
    counted = serializers.IntegerField()
    surplus = serializers.IntegerField()
    today = serializers.IntegerField()
    ranked = serializers.IntegerField()
    all_bad = serializers.IntegerField()
    cannot_judge = serializers.IntegerField()
    demonstrated = serializers.IntegerField()
    active_seconds = serializers.FloatField()
    days = DayOutput(many=True)
    rounds = RoundLeftOutput(many=True)
    forecast = ForecastOutput()
    annotators = AnnotatorOutput(many=True)
    compared = serializers.IntegerField(help_text="Newest rankings that agreement and positions come from.")
    agreement = AgreementOutput()
    earlier_preferred = WinRateOutput()
    skips = SkipsOutput(many=True)


class StatisticsApi(APIView):
    """Counts, work left with a forecast, agreement and position bias. For reviewers and up."""

    @extend_schema(parameters=[StatisticsInput], responses=StatisticsOutput)
    def get(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug, at_least=Role.REVIEWER)
        asked = read_query(request, StatisticsInput)
        return Response(StatisticsOutput(progress_of_project(project, **asked)).data)
