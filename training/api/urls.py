"""The API of what machines learn, below /api/v1/."""

from django.urls import path

from training.api import checkpoints, compare, datasets, launching, my_work, rounds, runs

_PROJECT = "projects/<slug:slug>"
_ROUND = f"{_PROJECT}/rounds/<int:number>"
_RUN = f"{_PROJECT}/runs/<uuid:run>"
_JOB = f"{_PROJECT}/jobs/<uuid:job>"
_CHECKPOINT = f"{_PROJECT}/checkpoints/<int:checkpoint>"
_DATASET = f"{_PROJECT}/datasets/<int:dataset>"

urlpatterns = [
    path(f"{_PROJECT}/my-judgments", my_work.MyJudgmentsApi.as_view(), name="api-my-judgments"),
    path(f"{_PROJECT}/contestants", checkpoints.ContestantsApi.as_view(), name="api-contestants"),
    path(f"{_PROJECT}/rounds", rounds.RoundsApi.as_view(), name="api-rounds"),
    path(_ROUND, rounds.RoundApi.as_view(), name="api-round"),
    path(f"{_ROUND}/launch", rounds.LaunchApi.as_view(), name="api-launch-round"),
    path(f"{_ROUND}/retry", rounds.RetryApi.as_view(), name="api-retry-step"),
    path(f"{_ROUND}/skip", rounds.SkipStepApi.as_view(), name="api-skip-step"),
    path(f"{_ROUND}/end-ranking", rounds.EndRankingApi.as_view(), name="api-end-ranking"),
    path(f"{_ROUND}/cancel", rounds.CancelRoundApi.as_view(), name="api-cancel-round"),
    path("methods", launching.MethodsApi.as_view(), name="api-methods"),
    path(f"{_PROJECT}/runs", launching.RunsWithDraftsApi.as_view(), name="api-runs"),
    path(f"{_PROJECT}/runs/queue", runs.QueueApi.as_view(), name="api-runs-queue"),
    path(f"{_PROJECT}/runs/compare", runs.RunsCompareApi.as_view(), name="api-runs-compare"),
    path(_RUN, launching.RunDraftApi.as_view(), name="api-run"),
    path(f"{_RUN}/check", launching.CheckRunApi.as_view(), name="api-check-run"),
    path(f"{_RUN}/launch", launching.LaunchRunApi.as_view(), name="api-launch-run"),
    path(f"{_RUN}/priority", runs.RunPriorityApi.as_view(), name="api-run-priority"),
    path(f"{_RUN}/continue", runs.ContinueRunApi.as_view(), name="api-continue-run"),
    path(f"{_RUN}/duplicate", runs.DuplicateRunApi.as_view(), name="api-duplicate-run"),
    path(f"{_RUN}/metrics", runs.RunMetricsApi.as_view(), name="api-run-metrics"),
    path(f"{_RUN}/samples", runs.RunSamplesApi.as_view(), name="api-run-samples"),
    path(f"{_RUN}/log", runs.RunLogApi.as_view(), name="api-run-log"),
    path(f"{_RUN}/cancel", runs.CancelRunApi.as_view(), name="api-cancel-run"),
    path(_JOB, runs.JobApi.as_view(), name="api-job"),
    path(f"{_JOB}/log", runs.JobLogApi.as_view(), name="api-job-log"),
    path(f"{_PROJECT}/checkpoints", checkpoints.CheckpointsApi.as_view(), name="api-checkpoints"),
    path(f"{_PROJECT}/checkpoints/add-default", checkpoints.AddDefaultApi.as_view(), name="api-add-default"),
    path(_CHECKPOINT, checkpoints.CheckpointApi.as_view(), name="api-checkpoint"),
    path(f"{_CHECKPOINT}/export", checkpoints.ExportApi.as_view(), name="api-export-checkpoint"),
    path(f"{_CHECKPOINT}/judgments", checkpoints.JudgmentsApi.as_view(), name="api-checkpoint-judgments"),
    path(f"{_PROJECT}/evaluations", checkpoints.EvaluationsApi.as_view(), name="api-evaluations"),
    path(f"{_PROJECT}/datasets", datasets.DatasetsApi.as_view(), name="api-datasets"),
    path(f"{_PROJECT}/datasets/import", datasets.DatasetImportApi.as_view(), name="api-import-dataset"),
    path(_DATASET, datasets.DatasetApi.as_view(), name="api-dataset"),
    path(f"{_DATASET}/pairs", datasets.PairsApi.as_view(), name="api-dataset-pairs"),
    path(f"{_PROJECT}/compare", compare.CompareApi.as_view(), name="api-compare"),
    path(f"{_PROJECT}/compare/prompts", compare.SideBySideApi.as_view(), name="api-compare-prompts"),
]
