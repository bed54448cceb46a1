"""The API of what people judge, below /api/v1/."""

from django.urls import path

from annotation.api import annotating, guidelines, people, progress, projects, prompts, review

_PROJECT = "projects/<slug:slug>"
_ASSIGNMENT = "projects/<slug:slug>/assignments/<uuid:assignment>"

urlpatterns = [
    path("projects/<slug:slug>/claim", annotating.ClaimApi.as_view(), name="api-claim"),
    path("projects/<slug:slug>/progress", annotating.ProgressApi.as_view(), name="api-progress"),
    path(_ASSIGNMENT, annotating.BoardApi.as_view(), name="api-board"),
    path("projects/<slug:slug>/statistics", progress.StatisticsApi.as_view(), name="api-statistics"),
    path(f"{_ASSIGNMENT}/submit", annotating.SubmitApi.as_view(), name="api-submit"),
    path(f"{_ASSIGNMENT}/revise", annotating.ReviseApi.as_view(), name="api-revise"),
    path(f"{_ASSIGNMENT}/withdraw", annotating.WithdrawApi.as_view(), name="api-withdraw"),
    path(f"{_ASSIGNMENT}/report", annotating.ReportApi.as_view(), name="api-report"),
    path(f"{_ASSIGNMENT}/skip", annotating.SkipApi.as_view(), name="api-skip"),
    path(f"{_ASSIGNMENT}/release", annotating.ReleaseApi.as_view(), name="api-release"),
    path(f"{_ASSIGNMENT}/renew", annotating.RenewApi.as_view(), name="api-renew"),
    path(f"{_ASSIGNMENT}/draft", annotating.DraftApi.as_view(), name="api-draft"),
    # the project around it: settings, people, guideline
    path("projects", projects.ProjectsApi.as_view(), name="api-projects"),
    path("join", people.JoinApi.as_view(), name="api-join"),
    path(f"{_PROJECT}", projects.ProjectApi.as_view(), name="api-project"),
    path(f"{_PROJECT}/settings", projects.SettingsApi.as_view(), name="api-settings"),
    path(f"{_PROJECT}/pause", projects.PauseApi.as_view(), name="api-pause"),
    path(f"{_PROJECT}/resume", projects.ResumeApi.as_view(), name="api-resume"),
    path(f"{_PROJECT}/members", people.MembersApi.as_view(), name="api-members"),
    path(f"{_PROJECT}/members/<int:member>", people.MemberApi.as_view(), name="api-member"),
    path(f"{_PROJECT}/invitations", people.InvitationsApi.as_view(), name="api-invitations"),
    path(
        f"{_PROJECT}/invitations/<int:invitation>/revoke",
        people.RevokeInvitationApi.as_view(),
        name="api-revoke-invitation",
    ),
    path(f"{_PROJECT}/preferences", people.PreferencesApi.as_view(), name="api-preferences"),
    path(f"{_PROJECT}/guideline", guidelines.GuidelineApi.as_view(), name="api-guideline"),
    path(f"{_PROJECT}/guideline/read", guidelines.ReadGuidelineApi.as_view(), name="api-read-guideline"),
    path(f"{_PROJECT}/guidelines", guidelines.GuidelinesApi.as_view(), name="api-guidelines"),
    path(
        f"{_PROJECT}/guidelines/<int:version>",
        guidelines.GuidelineVersionApi.as_view(),
        name="api-guideline-version",
    ),
    path(f"{_PROJECT}/preview", guidelines.PreviewApi.as_view(), name="api-preview"),
    # what people wrote, and what they reported
    path(f"{_PROJECT}/answers", review.AnswersApi.as_view(), name="api-answers"),
    path(f"{_PROJECT}/answers/<int:answer>/approve", review.ApproveApi.as_view(), name="api-approve"),
    path(f"{_PROJECT}/answers/<int:answer>/decline", review.DeclineApi.as_view(), name="api-decline"),
    path(f"{_PROJECT}/reports", review.ReportsApi.as_view(), name="api-reports"),
    path(f"{_PROJECT}/reports/<int:report>/resolve", review.ResolveApi.as_view(), name="api-resolve"),
    # prompts
    path(f"{_PROJECT}/prompts", prompts.PromptsApi.as_view(), name="api-prompts"),
    path(f"{_PROJECT}/prompts/import", prompts.ImportApi.as_view(), name="api-import-prompts"),
    path(f"{_PROJECT}/prompts/tags", prompts.TagsApi.as_view(), name="api-prompt-tags"),
    path(f"{_PROJECT}/prompts/<int:prompt>", prompts.PromptApi.as_view(), name="api-prompt"),
]
