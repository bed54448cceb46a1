"""What the templates need beyond Django's own: tabs, roles, figures."""

from typing import Any

from django import template
from django.template.context import RequestContext
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from annotation.access import includes
from annotation.models import Invitation, Project
from annotation.rendering import safe_html
from annotation.selectors.members import state_of
from annotation.selectors.review import waiting_for_review

register = template.Library()


@register.filter
def open_to(project: Project, role: str) -> bool:
    """Whether the visitor's role in the project (set by get_project) includes `role`."""
    return includes(getattr(project, "my_role", "annotator"), role)


@register.simple_tag(takes_context=True)
def tab(context: RequestContext, label: str, name: str, slug: str, waiting: int = 0) -> SafeString:
    """One tab of a project, with how much waits there; the one whose address the page lies under is marked."""
    address, here = reverse(name, args=[slug]), context["request"].path
    is_here = here == address if name == "project" else here.startswith(address)
    return format_html(
        '<li><a href="{}"{}>{}{}</a></li>',
        address,
        SafeString(' aria-current="page"' if is_here else ""),
        label,
        format_html(' <span class="badge">{}<span class="visually-hidden"> waiting</span></span>', waiting)
        if waiting
        else "",
    )


@register.simple_tag(takes_context=True)
def review_tab(context: RequestContext, project: Project) -> SafeString:
    """The reviewers' tab. Counting costs a query, so it is asked for only where the tab is shown."""
    return tab(context, "Review", "review", project.slug, waiting_for_review(project))


@register.simple_tag(takes_context=True)
def page_address(context: RequestContext, number: int) -> str:
    """The query that leads to another page of the same list, its filters kept."""
    query = context["request"].GET.copy()
    query["page"] = str(number)
    return f"?{query.urlencode()}"


@register.filter
def markdown(text: str) -> SafeString:
    """A text of ours or theirs as cleaned HTML."""
    return SafeString(safe_html(text))


@register.filter
def invitation_state(invitation: Invitation) -> str:
    """open, revoked, used up or expired."""
    return state_of(invitation)


@register.filter
def percent(value: Any) -> str:
    """0.731 as 73 %; a dash for nothing."""
    return "–" if value is None or value == "" else f"{float(value) * 100:.0f} %"


@register.filter
def short_time(seconds: float | None) -> str:
    """Seconds as 42 s, 3 min 20 s or 2 h 5 min; a dash for nothing."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@register.filter
def figure(value: Any) -> Any:
    """A number as people read it (0.4821, 0.0005, 1,204), a list of them in brackets; anything else as it is."""
    if isinstance(value, list):
        return f"[{', '.join(str(figure(each)) for each in value)}]"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else value


@register.inclusion_tag("interval.html")
def interval(rate: float | None, low: float | None, high: float | None) -> dict[str, Any]:
    """A rate with its interval drawn on a line from 0 to 1 with a mark at 0.5."""
    if rate is None or low is None or high is None:
        return {"rate": None}
    return {
        "rate": rate,
        "low": low,
        "high": high,
        "x_low": round(low * 100, 2),
        "width": round((high - low) * 100, 2),
        "x_rate": round(rate * 100, 2),
        "is_clear": low > 0.5 or high < 0.5,
    }


@register.filter
def size(count: float | None) -> str:
    """Bytes as 12 MB or 3.4 GB; a dash for nothing."""
    if count is None:
        return "–"
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


@register.filter
def line_ends(text: str) -> str:
    """A text whose line ends can be seen, as a template writes some that matter."""
    return text.replace("\n", "↵\n")
