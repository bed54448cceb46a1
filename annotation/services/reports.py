"""Reporting that something is wrong with a prompt or its completions."""

from django.db import transaction

from annotation.models import Assignment, Report
from annotation.services.claims import skip_comparison
from rankloop.errors import Refused

MOST_REPORT = 2_000


@transaction.atomic
def report_comparison(*, assignment: Assignment, category: str, text: str = "") -> Report:
    """Report a comparison, and skip it unless it has been judged. Reported already: the first report is kept.

    Raises Refused for an unknown category, or `other` without a text.
    """
    if category not in Report.Category.values:
        raise Refused(f"Unknown reason {category!r}. Known are {', '.join(Report.Category.values)}.")
    if category == Report.Category.OTHER and not text.strip():
        raise Refused("Say in a few words what is wrong.")
    report, _ = Report.objects.get_or_create(
        assignment=assignment, defaults={"category": category, "text": text[:MOST_REPORT]}
    )
    if assignment.state != Assignment.State.SUBMITTED:
        skip_comparison(assignment=assignment, reason=f"Reported: {report.get_category_display()}")
    return report
