"""What people judge. Everything hangs under a Project; nothing is looked up without it."""

from annotation.models.judgments import Judgment, RankedCompletion
from annotation.models.projects import Guideline, Invitation, Membership, Project
from annotation.models.prompts import Completion, Contestant, Prompt
from annotation.models.rounds import Assignment, Comparison, ComparisonCompletion, Report, Round, Slot

__all__ = [
    "Assignment",
    "Comparison",
    "ComparisonCompletion",
    "Completion",
    "Contestant",
    "Guideline",
    "Invitation",
    "Judgment",
    "Membership",
    "Project",
    "Prompt",
    "RankedCompletion",
    "Report",
    "Round",
    "Slot",
]
