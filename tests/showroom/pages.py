"""Every page of the site: the list that pictures, axe-core and the zoom tests go by.

A new page is one line here; `tests/platform/test_every_page.py` fails until it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from tests.showroom.filling import LONG_NAME, Room


@dataclass(frozen=True)
class Page:
    """One page in one state. `keys` are pressed in order once it is there; `typed` goes into what has the focus."""

    name: str
    about: str
    address: str
    user: str = ""  # nobody is signed in
    url: str = ""  # its name in urls.py; none: no address of ours
    keys: str = ""
    typed: str = ""
    status: int = 200

    @property
    def is_board(self) -> bool:
        """Whether it is the ranking page with something to judge."""
        return self.url == "annotate" and not self.name.startswith("annotate-nothing")


# Named addresses that are not pages, and why.
NOT_PAGES = {
    "sign-out": "takes a POST",
    "new-project": "takes a POST from a form on the page of one's projects",
    "revoke-token": "takes a POST",
    "pause-project": "takes a POST",
    "resume-project": "takes a POST",
    "change-role": "takes a POST",
    "remove-member": "takes a POST",
    "revoke-invitation": "takes a POST",
    "launch-round": "takes a POST",
    "retry-step": "takes a POST",
    "skip-step": "takes a POST",
    "cancel-run": "takes a POST",
    "run-priority": "takes a POST",
    "continue-run": "takes a POST",
    "duplicate-run": "takes a POST",
    "add-default-base": "takes a POST",
    "launch-run": "takes a POST",
    "check-run": "takes a POST",
    "discard-run": "takes a POST",
    "draft-live": "a part of a draft's page",
    "round-live": "a part of the round's page",
    "runs-live": "a part of the page of runs",
    "run-live": "a part of the run's page",
    "run-log": "a part of the run's page",
    "job-live": "a part of the job's page",
    "job-log": "a part of the job's page",
    "latest-checkpoints": "a part of the project's page",
    "run-metrics": "JSON for the curves",
    "export-checkpoint": "a download",
    "dataset-pairs": "a download",
    "dataset-demonstrations": "a download",
}


def pages(room: Room) -> list[Page]:
    """The list, with the addresses that the room's rows have."""
    return [
        *_accounts(room),
        *_projects(room),
        *_ranking(room),
        *_rounds(room),
        *_training(room),
        *_empty(room),
    ]


def _at(
    url: str,
    name: str,
    about: str,
    user: str = "researcher",
    *,
    keys: str = "",
    typed: str = "",
    **where: Any,
) -> Page:
    """A page by the name of its address; `where` are the parts of it."""
    return Page(name, about, reverse(url, kwargs=where), user, url, keys, typed)


def _accounts(room: Room) -> Iterator[Page]:
    yield _at("sign-in", "sign-in", "Sign in.", "")
    yield _at("account", "account", "One's own API tokens.")
    yield _at("api-docs", "api-docs", "Every address of the API, what it takes and what it answers.")
    yield _at("change-password", "password", "Change one's password.")
    yield Page(
        "not-found",
        "What is missing, and what is not open to the visitor.",
        "/p/no-such-project/",
        "anna",
        status=404,
    )


def _projects(room: Room) -> Iterator[Page]:
    slug = room.project.slug
    yield _at("home", "home", "The projects one is a member of.", "anna")
    yield _at("home", "home-empty", "The same, for somebody who is in none yet.", "stranger")
    yield _at("home", "home-staff", "The same, for staff, who may open projects.", "admin")
    yield _at("project", "project", "A project's overview, for researchers.", slug=slug)
    yield _at("project", "project-annotator", "The same, for annotators.", "anna", slug=slug)
    yield _at(
        "project", "project-long-name", "The same, for somebody with a long name.", LONG_NAME, slug=slug
    )
    yield _at("prompts", "prompts", "Prompts, searched and filtered.", slug=slug)
    yield _at("new-prompt", "new-prompt", "Write a prompt by hand.", slug=slug)
    yield _at(
        "progress", "progress", "How far the ranking is, how fast, and how far annotators agree.", slug=slug
    )
    yield _at(
        "review",
        "review",
        "What people wrote waits for a reviewer; what they reported, too.",
        "reviewer",
        slug=slug,
    )
    review = f"{reverse('review', args=[slug])}?show=approved"
    yield Page("review-approved", "Answers that were let into datasets.", review, "reviewer", "review")
    yield _at("my-work", "my-work", "My judgments, what each was used for, my own pace.", "ben", slug=slug)
    mine = room.cast.ben.assignments.filter(judgments__outcome="ranked").latest("claimed_at")
    yield _at("withdraw", "withdraw", "Take a judgment back.", "ben", slug=slug, assignment=mine.pk)
    yield _at("guideline", "guideline", "What annotators rank by, with its versions.", "anna", slug=slug)
    yield _at(
        "edit-guideline", "guideline-edit", "Edit the guideline, with a live preview.", "admin", slug=slug
    )
    yield _at("preferences", "preferences", "Opt out of sensitive prompts.", "anna", slug=slug)
    yield _at("people", "people", "Members, roles, invitations.", "admin", slug=slug)
    yield _at("project-settings", "settings", "A project's settings.", "admin", slug=slug)
    yield _at(
        "join", "join", "Where an invitation leads: join with a new account.", "", token=room.invitation
    )
    yield _at(
        "join", "join-signed-in", "The same, with the account one has.", "stranger", token=room.invitation
    )
    closed = reverse("join", args=[room.closed_invitation])
    yield Page("join-closed", "An invitation that was revoked.", closed, "", "join", status=410)


def _ranking(room: Room) -> Iterator[Page]:
    def board(name: str, about: str, user: str, keys: str = "", typed: str = "") -> Page:
        return _at(
            "annotate", f"annotate-{name}", about, user, keys=keys, typed=typed, slug=room.project.slug
        )

    yield board(
        "pair", "Two completions: one keystroke says which is better, and by how much.", "anna", keys="2"
    )
    yield board("four", "Four completions: digits give places, equal ones are ties.", "ben", keys="1 2 2")
    yield board("eight", "Eight long completions; very long ones are folded.", "chloe", keys="3 1")
    yield board(
        "demonstration",
        "Write the ideal answer, with a live preview.",
        "emeka",
        typed="**Two minutes** at 75 °C.\n\n- not hotter\n- not longer",
    )
    yield board("sensitive", "What may disturb is blurred until it is asked for.", "fatima")
    yield board("right-to-left", "Right-to-left text, long words, hidden characters.", "dina")
    yield board("notes", "Flags, aspects, a comment, a better answer.", "ben", keys="n 1")
    yield board("differences", "Two completions, word by word.", "ben", keys="d")
    yield board(
        "guideline", "The guideline, one key away, with what changed since it was read.", "ben", keys="g"
    )
    yield board("help", "Every key.", "ben", keys="?")
    yield board("all-bad", "None of them is good enough.", "ben", keys="a")
    yield board("cannot-judge", "A reason in one key.", "ben", keys="c")
    yield board("skip", "Skip, with or without a reason.", "ben", keys="s")
    yield board("report", "Report a prompt or a completion.", "ben", keys="r")
    slug, paused = room.empty.slug, room.paused.slug
    yield _at(
        "annotate", "annotate-nothing", "Nothing to rank: the page looks again by itself.", "anna", slug=slug
    )
    yield _at("annotate", "annotate-nothing-paused", "The project is paused.", "anna", slug=paused)


def _rounds(room: Room) -> Iterator[Page]:
    slug, rounds = room.project.slug, room.rounds
    yield _at("rounds", "rounds", "Every round.", slug=slug)
    yield _at("new-round", "new-round", "Launch a round.", slug=slug)
    for name, about in (
        ("draft", "A draft: opened by the round before it."),
        ("generating", "Completions are being written."),
        ("Pairs", "Annotators rank."),
        ("trouble", "A run has failed, and somebody must decide."),
        ("closed", "Over, with what it brought."),
        ("cancelled", "A rehearsal that was cancelled."),
    ):
        number = rounds[name].number
        yield _at("round", f"round-{'ranking' if name == 'Pairs' else name}", about, slug=slug, number=number)
    number = rounds["Pairs"].number
    yield _at("end-ranking", "round-end-ranking", "End ranking now?", slug=slug, number=number)
    yield _at(
        "freeze-round",
        "round-freeze",
        "Freeze what was judged now?",
        slug=slug,
        number=rounds["closed"].number,
    )
    yield _at("cancel-round", "round-cancel", "Cancel a round?", slug=slug, number=number)


def _training(room: Room) -> Iterator[Page]:
    slug, runs = room.project.slug, room.runs
    checkpoints = {checkpoint.kind: checkpoint.pk for checkpoint in room.project.checkpoints.order_by("-pk")}
    yield _at(
        "runs", "runs", "What trains now, what waits in which order, and every training run.", slug=slug
    )
    yield _at("run", "run-running", "A run at work, with live curves.", slug=slug, run=runs["training"].pk)
    yield _at(
        "run", "run-succeeded", "A run that has published a checkpoint.", slug=slug, run=runs["reward"].pk
    )
    yield _at("new-run", "run-new", "A training run by hand: method, data, parent, options.", slug=slug)
    preset = f"{reverse('new-run', args=[slug])}?method=ppo&preset=one-gpu"
    yield Page("run-new-preset", "The same, filled by a preset.", preset, "researcher", "new-run")
    for name, about in (
        ("checking", "A draft that is being looked over."),
        ("problems", "A draft that can't be launched, and why."),
        ("ready", "A draft that can be launched: what the model sees, and what it learns."),
    ):
        yield _at("run", f"run-draft-{name}", about, slug=slug, run=runs[name].pk)
    yield _at("change-run", "run-draft-change", "Change a draft.", slug=slug, run=runs["ready"].pk)
    yield _at("run", "run-failed", "A run that failed, and why.", slug=slug, run=runs["trouble"].pk)
    yield _at(
        "run", "run-online", "PPO that ended early, and what it measured.", slug=slug, run=runs["ppo"].pk
    )
    yield _at(
        "run-samples",
        "run-samples",
        "What a policy writes before and after.",
        slug=slug,
        run=runs["ppo"].pk,
    )
    yield _at(
        "run-samples", "run-samples-empty", "The same of a run without any.", slug=slug, run=runs["dpo"].pk
    )
    laid = "&".join(f"run={runs[name].pk}" for name in ("reward", "dpo", "ppo"))
    about = "Several runs laid over each other, and in what they differ."
    address = f"{reverse('compare-runs', args=[slug])}?{laid}"
    yield Page("compare-runs", about, address, "researcher", "compare-runs")
    yield _at("compare-runs", "compare-runs-empty", "The same, with none chosen.", slug=slug)
    job = room.rounds["generating"].generation_jobs.get()
    yield _at("job", "job", "A job that writes completions.", slug=slug, job=job.pk)
    yield _at("checkpoints", "checkpoints", "Every checkpoint.", slug=slug)
    yield _at(
        "checkpoint",
        "checkpoint",
        "One checkpoint with its lineage, down to each judgment.",
        slug=slug,
        checkpoint=checkpoints["policy"],
    )
    yield _at("checkpoint", "checkpoint-base", "A base model.", slug=slug, checkpoint=checkpoints["base"])
    yield _at(
        "dataset", "dataset", "Frozen judgments.", slug=slug, dataset=room.rounds["closed"].datasets.get().pk
    )
    yield _at("import-dataset", "dataset-import", "Bring in pairs or answers from a file.", slug=slug)
    a, b = room.rounds["closed"].contestants.order_by("-pk").values_list("pk", flat=True)
    address = f"{reverse('compare', args=[slug])}?a={a}&b={b}"
    yield Page("compare", "Two versions side by side on the same prompts.", address, "researcher", "compare")


def _empty(room: Room) -> Iterator[Page]:
    """What the lists say when there is nothing in them."""
    slug = room.empty.slug
    about = "The same, in a project that has just been opened."
    for url in (
        "project",
        "progress",
        "prompts",
        "rounds",
        "new-round",
        "runs",
        "new-run",
        "checkpoints",
        "compare",
    ):
        yield _at(url, f"{url}-empty", about, slug=slug)
    yield _at("review", "review-empty", about, "admin", slug=slug)
    yield _at("my-work", "my-work-empty", about, "anna", slug=slug)
