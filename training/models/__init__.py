"""What machines learn: datasets frozen from judgments, runs, and the checkpoints they publish."""

from training.models.checkpoints import Checkpoint, CheckpointContestant, Evaluation
from training.models.data import DatasetMember, PreferenceDataset
from training.models.work import GenerationJob, RunInput, RunMetric, TrainingRun, WorkStatus

__all__ = [
    "Checkpoint",
    "CheckpointContestant",
    "DatasetMember",
    "Evaluation",
    "GenerationJob",
    "PreferenceDataset",
    "RunInput",
    "RunMetric",
    "TrainingRun",
    "WorkStatus",
]
