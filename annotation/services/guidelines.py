"""Publishing the guideline, and keeping who has read which version."""

from django.db import transaction

from annotation.models import Guideline, Membership, Project
from annotation.selectors.guidelines import newest_guideline
from annotation.services.projects import lock_project
from rankloop.accounts.models import User
from rankloop.audit.services import record
from rankloop.errors import Conflict, Refused

MOST_CHARACTERS = 100_000


class Overtaken(Conflict):
    """Another version was published since the one this text was based on."""


@transaction.atomic
def publish_guideline(*, project: Project, user: User, text: str, based_on: int) -> Guideline:
    """Publish the next version, written on top of version `based_on` (0: of none). Sent twice, it is published once.

    Raises Overtaken when `based_on` is not the newest version, Refused for a text that is empty, too long or unchanged.
    """
    text = text.replace("\r\n", "\n").lstrip("\n").rstrip() + "\n"
    if text == "\n":
        raise Refused("The guideline is empty. Say what makes one completion better than another.")
    if len(text) > MOST_CHARACTERS:
        raise Refused(
            f"The guideline has {len(text):,} characters, and {MOST_CHARACTERS:,} is the most. Shorten it: "
            "nobody keeps more in mind while ranking."
        )
    lock_project(project)
    newest = newest_guideline(project)
    version = newest.version if newest else 0
    if newest and (newest.text, newest.created_by_id, newest.version) == (text, user.pk, based_on + 1):
        return newest
    if based_on != version:
        raise Overtaken(
            f"Version {version} is the newest, and yours was written on top of version {based_on}. Look at what "
            "changed, put it together with yours, and publish again."
        )
    if newest and newest.text.strip() == text.strip():
        raise Refused("Nothing is changed. Annotators are told of a new version only when there is one.")
    guideline = Guideline.objects.create(project=project, version=version + 1, text=text, created_by=user)
    record("guideline published", actor=user, project=project.slug, subject=str(guideline.version))
    return guideline


def mark_guideline_read(*, project: Project, user: User, version: int) -> None:
    """Keep that a member has seen a version; an older one than they have seen changes nothing. Repeatable.

    Raises Refused for a version that was never published.
    """
    if not project.guidelines.filter(version=version).exists():
        raise Refused(f"There is no version {version} of the guideline.")
    earlier = Membership.objects.filter(project=project, user=user, guideline_read__lt=version)
    earlier.update(guideline_read=version)
