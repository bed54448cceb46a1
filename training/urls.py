"""Addresses of the pages of rounds, runs, checkpoints, datasets and comparisons."""

from django.urls import path

from training.views import checkpoints, compare, exports, launching, my_work, overlay, rounds, runs, samples

_PROJECT = "p/<slug:slug>"
_ROUND = f"{_PROJECT}/rounds/<int:number>"
_RUN = f"{_PROJECT}/runs/<uuid:run>"
_JOB = f"{_PROJECT}/jobs/<uuid:job>"
_DATASET = f"{_PROJECT}/datasets/<int:dataset>"

urlpatterns = [
    path(f"{_PROJECT}/rounds/", rounds.rounds, name="rounds"),
    path(f"{_PROJECT}/rounds/new/", rounds.new_round, name="new-round"),
    path(f"{_ROUND}/", rounds.round_page, name="round"),
    path(f"{_ROUND}/live/", rounds.round_live, name="round-live"),
    path(f"{_ROUND}/launch/", rounds.launch, name="launch-round"),
    path(f"{_ROUND}/retry/", rounds.retry, name="retry-step"),
    path(f"{_ROUND}/skip/", rounds.skip, name="skip-step"),
    path(f"{_ROUND}/end-ranking/", rounds.end, name="end-ranking"),
    path(f"{_ROUND}/freeze/", rounds.freeze, name="freeze-round"),
    path(f"{_ROUND}/cancel/", rounds.cancel, name="cancel-round"),
    path(f"{_PROJECT}/runs/", runs.runs, name="runs"),
    path(f"{_PROJECT}/runs/new/", launching.new_run, name="new-run"),
    path(f"{_PROJECT}/runs/live/", runs.runs_live, name="runs-live"),
    path(f"{_PROJECT}/runs/compare/", overlay.compare_runs, name="compare-runs"),
    path(f"{_RUN}/change/", launching.change_run, name="change-run"),
    path(f"{_RUN}/findings/", launching.draft_live, name="draft-live"),
    path(f"{_RUN}/check/", launching.check, name="check-run"),
    path(f"{_RUN}/launch/", launching.launch, name="launch-run"),
    path(f"{_RUN}/discard/", launching.discard, name="discard-run"),
    path(f"{_RUN}/", runs.run_page, name="run"),
    path(f"{_RUN}/live/", runs.run_live, name="run-live"),
    path(f"{_RUN}/log/", runs.run_log, name="run-log"),
    path(f"{_RUN}/metrics.json", runs.run_metrics, name="run-metrics"),
    path(f"{_RUN}/samples/", samples.run_samples, name="run-samples"),
    path(f"{_RUN}/cancel/", runs.cancel_run, name="cancel-run"),
    path(f"{_RUN}/priority/", runs.change_priority, name="run-priority"),
    path(f"{_RUN}/continue/", runs.continue_run, name="continue-run"),
    path(f"{_RUN}/duplicate/", runs.duplicate_run, name="duplicate-run"),
    path(f"{_JOB}/", runs.job_page, name="job"),
    path(f"{_JOB}/live/", runs.job_live, name="job-live"),
    path(f"{_JOB}/log/", runs.job_log, name="job-log"),
    path(f"{_PROJECT}/checkpoints/", checkpoints.checkpoints, name="checkpoints"),
    path(f"{_PROJECT}/checkpoints/latest/", checkpoints.latest_checkpoints, name="latest-checkpoints"),
    path(f"{_PROJECT}/checkpoints/add-default/", checkpoints.add_default_base, name="add-default-base"),
    path(f"{_PROJECT}/checkpoints/<int:checkpoint>/", checkpoints.checkpoint_page, name="checkpoint"),
    path(f"{_PROJECT}/checkpoints/<int:checkpoint>/export.tar", exports.download, name="export-checkpoint"),
    path(f"{_PROJECT}/datasets/import/", checkpoints.import_page, name="import-dataset"),
    path(f"{_DATASET}/", checkpoints.dataset_page, name="dataset"),
    path(
        f"{_DATASET}/sft-<slug:split>.jsonl",
        checkpoints.dataset_demonstrations,
        name="dataset-demonstrations",
    ),
    path(f"{_DATASET}/<slug:split>.jsonl", checkpoints.dataset_pairs, name="dataset-pairs"),
    path(f"{_PROJECT}/my-work/", my_work.my_work, name="my-work"),
    path(f"{_PROJECT}/my-work/<uuid:assignment>/withdraw/", my_work.withdraw, name="withdraw"),
    path(f"{_PROJECT}/compare/", compare.compare, name="compare"),
]
