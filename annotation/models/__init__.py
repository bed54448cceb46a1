"""What people judge. Everything hangs under a Project; nothing is looked up without it."""

from annotation.models.judgments import Judgment, RankedCompletion
from annotation.models.projects import Guideline, Membership, Project
from annotation.models.prompts import Completion, Contestant, Prompt
from annotation.models.rounds import Assignment, Comparison, ComparisonCompletion, Round, Slot

__all__ = [
    "Assignment",
    "Comparison",
    "ComparisonCompletion",
    "Completion",
    "Contestant",
    "Guideline",
    "Judgment",
    "Membership",
    "Project",
    "Prompt",
    "RankedCompletion",
    "Round",
    "Slot",
]
