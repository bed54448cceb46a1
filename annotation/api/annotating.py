"""The annotator's API: claim, look, submit, revise, withdraw, skip, report, release, renew, draft.

Blind: an assignment id and positions, no more.
"""

import uuid
from datetime import datetime
from typing import Any

from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import get_project
from annotation.api.shapes import (
    BoardOutput,
    ClaimInput,
    LeaseOutput,
    ProgressInput,
    ProgressOutput,
    RecordedOutput,
    ReportInput,
    ReviseInput,
    SkipInput,
    SubmitInput,
    WithdrawInput,
    submission_of,
)
from annotation.models import Assignment, Judgment, Project
from annotation.selectors.board import board_of, progress_of, rounds_in_ranking, said_by
from annotation.selectors.open_work import open_work
from annotation.services.claims import (
    claim_comparison,
    mark_masked,
    release_comparison,
    renew_lease,
    save_draft,
    skip_comparison,
)
from annotation.services.judgments import (
    revisable_until,
    revise_judgment,
    submit_judgment,
    withdraw_judgment,
)
from annotation.services.reports import report_comparison
from annotation.submissions import Rules
from rankloop.api import read_body, read_query
from rankloop.parsers import MEGABYTE

TAG = ["Annotating"]


def get_assignment(request: Request, slug: str, assignment: uuid.UUID) -> Assignment:
    """The caller's own assignment within a project of theirs; Http404 alike for a foreign and a missing one.

    It comes with `lease_minutes` and `rules` of the project.
    """
    mine = Assignment.objects.raw(
        """
        SELECT assignment.*, project.lease_minutes, project.strength_levels,
               project.flags AS known_flags, project.aspects AS known_aspects
        FROM annotation_assignment assignment
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
        row.rules = Rules(row.strength_levels, row.known_flags, row.known_aspects)
        return row
    raise Http404("There is no such assignment, or it is not yours.")


def _board_json(project: Project, assignment: Assignment, judgment: Judgment | None = None) -> dict[str, Any]:
    board = board_of(assignment, project)
    if board.has_masked:
        mark_masked(assignment=assignment)
    return {
        "assignment": str(assignment.pk),
        "kind": "demonstration" if board.is_demonstration else "ranking",
        "round": {"name": board.round_name, "rehearsal": board.rehearsal},
        "prompt": {"messages": board.messages},
        "sensitive": board.sensitive if project.blur_sensitive else [],
        "completions": board.completions,
        "asked": {
            "strength_levels": project.strength_levels,
            "flags": project.flags,
            "aspects": project.aspects,
        },
        "guideline": board.guideline,
        **_lease_json(assignment.lease_until),
        "draft": assignment.draft,
        "judgment": said_by(judgment, assignment.shown_order) if judgment else None,
        "revisable_until": revisable_until(assignment, project) if judgment else None,
    }


def _lease_json(until: datetime) -> dict[str, Any]:
    return {"lease_until": until, "lease_seconds": max(0.0, (until - timezone.now()).total_seconds())}


# --- the endpoints ---


class ClaimApi(APIView):
    """The next comparison for the caller; 204 when nothing is left."""

    @extend_schema(
        tags=TAG, summary="The next comparison", request=ClaimInput, responses={200: BoardOutput, 204: None}
    )
    def post(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug)
        asked = read_body(request, ClaimInput)
        assignment = claim_comparison(project=project, annotator=request.user, **asked)
        if assignment is None:
            return Response(status=status.HTTP_204_NO_CONTENT)
        return Response(_board_json(project, assignment))


class BoardApi(APIView):
    """One of the caller's own comparisons, with what they sent for it."""

    @extend_schema(tags=TAG, summary="A comparison of mine", responses=BoardOutput)
    def get(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        project = get_project(request.user, slug)
        mine = get_assignment(request, slug, assignment)
        judgment = mine.judgments.filter(superseded_by=None).first()
        return Response(_board_json(project, mine, judgment))


class ProgressApi(APIView):
    """The caller's own progress in a project, and how far its open rounds are. Nobody else's."""

    @extend_schema(
        tags=TAG,
        summary="My progress",
        parameters=[
            OpenApiParameter("since", str, description="Start of today, ISO 8601; default 24 hours ago.")
        ],
        responses=ProgressOutput,
    )
    def get(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug)
        asked = read_query(request, ProgressInput)
        return Response(
            {
                **progress_of(project=project, annotator=request.user, **asked),
                "left": open_work(user=request.user, projects=[project])[project.pk],
                "rounds": rounds_in_ranking(project=project, annotator=request.user),
            }
        )


class SubmitApi(APIView):
    """Send a judgment. The same key and body again is answered the same; another body under the key is a 409."""

    @extend_schema(tags=TAG, summary="Send a judgment", request=SubmitInput, responses=RecordedOutput)
    def post(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        mine = get_assignment(request, slug, assignment)
        sent = read_body(request, SubmitInput)
        judgment = submit_judgment(assignment=mine, submission=submission_of(sent), rules=mine.rules)
        return Response({"recorded": True, "counted": judgment.is_counted})


class ReviseApi(APIView):
    """Send another judgment in place of the one under the key `replaces`. Both are kept; the new one counts."""

    @extend_schema(tags=TAG, summary="Revise a judgment", request=ReviseInput, responses=RecordedOutput)
    def post(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        mine = get_assignment(request, slug, assignment)
        sent = read_body(request, ReviseInput)
        judgment = revise_judgment(
            assignment=mine,
            submission=submission_of(sent),
            replaces=sent["replaces"],
            rules=mine.rules,
        )
        return Response({"recorded": True, "counted": judgment.is_counted})


class WithdrawApi(APIView):
    """Take a judgment back. It is kept, and nothing frozen from now on takes it in."""

    @extend_schema(tags=TAG, summary="Withdraw a judgment", request=WithdrawInput, responses={204: None})
    def post(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        mine = get_assignment(request, slug, assignment)
        sent = read_body(request, WithdrawInput)
        withdraw_judgment(assignment=mine, **sent)
        return Response(status=status.HTTP_204_NO_CONTENT)


class SkipApi(APIView):
    """Pass over a comparison for good."""

    @extend_schema(tags=TAG, summary="Skip a comparison", request=SkipInput, responses={204: None})
    def post(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        mine = get_assignment(request, slug, assignment)
        sent = read_body(request, SkipInput)
        skip_comparison(assignment=mine, **sent)
        return Response(status=status.HTTP_204_NO_CONTENT)


class ReportApi(APIView):
    """Say that something is wrong with the prompt or a completion. It is skipped, and reviewers look into it."""

    @extend_schema(tags=TAG, summary="Report a comparison", request=ReportInput, responses={204: None})
    def post(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        mine = get_assignment(request, slug, assignment)
        sent = read_body(request, ReportInput)
        report_comparison(assignment=mine, **sent)
        return Response(status=status.HTTP_204_NO_CONTENT)


class ReleaseApi(APIView):
    """Give back a comparison that was not worked on."""

    @extend_schema(tags=TAG, summary="Give a comparison back", request=None, responses={204: None})
    def post(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        mine = get_assignment(request, slug, assignment)
        release_comparison(assignment=mine)
        return Response(status=status.HTTP_204_NO_CONTENT)


class RenewApi(APIView):
    """Keep the lease while working. One that ran out is had again where a place is free; else 409."""

    @extend_schema(tags=TAG, summary="Keep a comparison", request=None, responses=LeaseOutput)
    def post(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        mine = get_assignment(request, slug, assignment)
        return Response(_lease_json(renew_lease(assignment=mine, minutes=mine.lease_minutes)))


class DraftApi(APIView):
    """Keep an unfinished judgment on the server: any JSON object of at most 400,000 characters."""

    most_bytes = 2 * MEGABYTE

    @extend_schema(
        tags=TAG, summary="Keep a draft", request={"application/json": dict}, responses={204: None}
    )
    def put(self, request: Request, slug: str, assignment: uuid.UUID) -> Response:
        mine = get_assignment(request, slug, assignment)
        if not isinstance(request.data, dict):
            raise serializers.ValidationError({"draft": "Send an object."})
        save_draft(assignment=mine, draft=request.data)
        return Response(status=status.HTTP_204_NO_CONTENT)
