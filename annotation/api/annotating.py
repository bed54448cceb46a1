"""The annotator's API: claim, submit, skip, release, renew, draft. Blind: an assignment id and positions, no more."""

import uuid
from typing import Any

from django.http import Http404
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import get_project
from annotation.models import Assignment, Judgment, Project
from annotation.selectors.board import board_of, progress_of
from annotation.services.claims import (
    claim_comparison,
    release_comparison,
    renew_lease,
    save_draft,
    skip_comparison,
)
from annotation.services.judgments import Submission, submit_judgment


def get_assignment(request: Request, slug: str, assignment: uuid.UUID) -> Assignment:
    """The caller's own assignment within a project of theirs; Http404 alike for a foreign and a missing one."""
    mine = Assignment.objects.raw(
        """
        SELECT assignment.* FROM annotation_assignment assignment
        JOIN annotation_comparison comparison ON comparison.id = assignment.comparison_id
        JOIN annotation_round round ON round.id = comparison.round_id
        JOIN annotation_project project ON project.id = round.project_id
        JOIN annotation_membership membership
             ON membership.project_id = project.id AND membership.user_id = assignment.annotator_id
        WHERE assignment.id = %s AND assignment.annotator_id = %s AND project.slug = %s
        """,
        [assignment, request.user.pk, slug],
    )
    for row in mine:
        row.annotator = request.user
        return row
    raise Http404("There is no such assignment, or it is not yours.")


class ClaimInput(serializers.Serializer):
    prefetch = serializers.BooleanField(default=False)
    holding = serializers.UUIDField(required=False, allow_null=True, default=None)


class SubmitInput(serializers.Serializer):
    submission_key = serializers.UUIDField()
    outcome = serializers.ChoiceField(
        choices=[Judgment.Outcome.RANKED, Judgment.Outcome.ALL_BAD, Judgment.Outcome.CANNOT_JUDGE]
    )
    ranks = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=8), max_length=8, default=list
    )
    reason = serializers.CharField(max_length=2000, allow_blank=True, default="")
    active_seconds = serializers.FloatField(min_value=0, default=0.0)


class SkipInput(serializers.Serializer):
    reason = serializers.CharField(max_length=2000, allow_blank=True, default="")


class ClaimApi(APIView):
    """The next comparison for the caller; 204 when nothing is left."""

    def post(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug)
        asked = ClaimInput(data=request.data)
        asked.is_valid(raise_exception=True)
        assignment = claim_comparison(project=project, annotator=request.user, **asked.validated_data)
        if assignment is None:
            return Response(status=status.HTTP_204_NO_CONTENT)
        return Response(_board_json(project, request, assignment))


def _board_json(project: Project, request: Request, assignment: Assignment) -> dict[str, Any]:
    board = board_of(assignment)
    return {
        "assignment": str(assignment.pk),
        "round": {"name": board.round_name, "rehearsal": board.rehearsal},
        "prompt": {"messages": board.messages},
        "completions": board.completions,
        "lease_until": assignment.lease_until,
        "draft": assignment.draft,
    }


class ProgressApi(APIView):
    """The caller's own progress in a project. Nobody else's."""

    def get(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug)
        return Response(progress_of(project=project, annotator=request.user))


class SubmitApi(APIView):
    """Send a judgment. The same key and body again is answered the same; another body under the key is a 409."""

    def post(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        mine = get_assignment(request, slug, assignment)
        sent = SubmitInput(data=request.data)
        sent.is_valid(raise_exception=True)
        judgment = submit_judgment(assignment=mine, submission=Submission(**sent.validated_data))
        return Response({"recorded": True, "counted": judgment.is_counted})


class SkipApi(APIView):
    """Pass over a comparison for good."""

    def post(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        mine = get_assignment(request, slug, assignment)
        sent = SkipInput(data=request.data)
        sent.is_valid(raise_exception=True)
        skip_comparison(assignment=mine, **sent.validated_data)
        return Response(status=status.HTTP_204_NO_CONTENT)


class ReleaseApi(APIView):
    """Give back a comparison that was not worked on."""

    def post(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        mine = get_assignment(request, slug, assignment)
        release_comparison(assignment=mine)
        return Response(status=status.HTTP_204_NO_CONTENT)


class RenewApi(APIView):
    """Keep the lease while working."""

    def post(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        mine = get_assignment(request, slug, assignment)
        return Response({"lease_until": renew_lease(project=mine.comparison.round.project, assignment=mine)})


class DraftApi(APIView):
    """Keep an unfinished ranking on the server."""

    def put(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        mine = get_assignment(request, slug, assignment)
        if not isinstance(request.data, dict):
            raise serializers.ValidationError({"draft": "Send an object."})
        save_draft(assignment=mine, draft=request.data)
        return Response(status=status.HTTP_204_NO_CONTENT)
