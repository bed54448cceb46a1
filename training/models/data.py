"""Frozen preference datasets and the judgments in them."""

from django.db import models

from annotation.models import Judgment, Project, Round


class PreferenceDataset(models.Model):
    """A canonical snapshot of judgments in the artifact store, named by the digest of its manifest.

    Or the rows of an imported file; then no judgment stands behind it. Never edited. That a judgment in it was revised
    or withdrawn later is seen from the judgments, which are only added to: training.selectors.datasets.revised_since.
    """

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="datasets")
    digest = models.CharField(max_length=64)
    rounds = models.ManyToManyField(Round, related_name="datasets")
    sources = models.JSONField(default=list)  # of the judgments: never people and simulated ones unless asked
    # Judgments, comparisons, pairs in each split, ties, all-bad: what its page shows without opening the files.
    counts = models.JSONField(default=dict)
    # {"without": ids of annotators, "guideline_from": a version or null, "left_out": judgments}; empty: it has all.
    filters = models.JSONField(default=dict)
    imported_from = models.CharField(max_length=200, blank=True)  # the name of a file
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "digest"], name="one_dataset_per_digest")]

    def __str__(self) -> str:
        return f"dataset {self.digest[:12]}"


class DatasetMember(models.Model):
    """That a judgment is in a dataset. Withdrawal and lineage are look-ups in this table."""

    dataset = models.ForeignKey(PreferenceDataset, on_delete=models.PROTECT, related_name="members")
    judgment = models.ForeignKey(Judgment, on_delete=models.PROTECT, related_name="dataset_members")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["dataset", "judgment"], name="a_judgment_once_per_dataset")
        ]

    def __str__(self) -> str:
        return f"judgment {self.judgment_id} in {self.dataset}"
