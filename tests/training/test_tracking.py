"""Copies of a run's measurements: TensorBoard's event files, and what a worker tells a tracker."""

import struct
from pathlib import Path

import pytest
from django.test import override_settings

from training.event_files import crc32c, write_events
from training.models import TrainingRun, WorkStatus
from training.tracking import event_folder, tracker_of, write_tensorboard
from training.worker import _take_in_metrics

# Written by TensorBoard 2.20's own RecordWriter and protocol buffers: the version, the start of a session at step 300,
# and two scalars at step 300.
REFERENCE = bytes.fromhex(
    "1800000000000000a37f4b220900006040fc54d9411a0d627261696e2e4576656e743a32dcbd8b4f"
    "100000000000000095fbfe180900006040fc54d94110ac023a020801312d1a8d"
    "33000000000000000ca720560900006040fc54d94110ac022a250a180a1168656c645f6f75742f61636375726163791500"
    "00403f0a090a026b6c150000c0bf15b34217"
)


def records_of(file: Path) -> list[bytes]:
    """The contents of a file's records, read by the lengths they begin with; checksums are compared bit by bit."""
    data, contents = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        for part, checksum in (
            (data[:8], data[8:12]),
            (data[12 : 12 + length], data[12 + length : 16 + length]),
        ):
            plain = plain_crc32c(part)
            rotated = ((plain >> 15 | plain << 17) + 0xA282EAD8) & 0xFFFFFFFF
            assert struct.unpack("<I", checksum) == (rotated,)
        contents.append(data[12 : 12 + length])
        data = data[16 + length :]
    return contents


def plain_crc32c(content: bytes) -> int:
    """The definition, a bit at a time."""
    register = 0xFFFFFFFF
    for byte in content:
        for bit in range(8):
            feedback = (register ^ byte >> bit) & 1
            register = register >> 1 ^ (0x82F63B78 if feedback else 0)
    return register ^ 0xFFFFFFFF


def test_the_checksum_is_that_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283
    for content in (b"", b"\0" * 32, bytes(range(256))):
        assert crc32c(content) == plain_crc32c(content)


def test_a_file_is_byte_for_byte_what_tensorboard_writes(tmp_path):
    row = (1700000001.5, 300, {"held_out/accuracy": 0.75, "kl": -1.5})
    assert write_events(tmp_path, 7, [row], begins_at=300).read_bytes() == REFERENCE


def test_rows_are_added_to_the_file_of_their_attempt(tmp_path):
    first = write_events(tmp_path, 1, [(1.0, 1, {"loss": 0.5})])
    assert write_events(tmp_path, 1, [(2.0, 2, {"loss": 0.4})]) == first
    assert write_events(tmp_path, 1, []) == first
    second = write_events(tmp_path, 2, [(3.0, 2, {"loss": 0.3})], begins_at=2)
    assert sorted(file.name for file in tmp_path.iterdir()) == [first.name, second.name]  # read in this order
    assert len(records_of(first)) == 3 and records_of(first)[0].endswith(b"brain.Event:2")
    assert (
        b"\x3a\x02\x08\x01" in records_of(second)[1]
    )  # a session starts: what came before from there on is old


class Lines:
    """A recipe that has written these lines of metrics.jsonl."""

    def __init__(self, *lines: dict) -> None:
        self.lines = lines

    def read_lines(self, _: str):
        yield from self.lines


def line(step: int, value: float) -> dict:
    return {"step": step, "name": "loss", "value": value, "at": 1700000000.0 + step}


@pytest.fixture
def run(cast, settings, tmp_path) -> TrainingRun:
    settings.TENSORBOARD_FOLDER = tmp_path / "tensorboard"
    return TrainingRun.objects.create(
        project=cast.project, step="dpo", method="dpo", status=WorkStatus.RUNNING, attempt=1
    )


@pytest.mark.django_db
def test_a_worker_writes_what_it_takes_in_under_the_runs_own_name(run, tmp_path):
    _take_in_metrics(run, Lines(line(1, 0.7), line(2, 0.6)))
    _take_in_metrics(run, Lines())
    (file,) = (tmp_path / "tensorboard" / "tea" / f"dpo-{str(run.pk)[:8]}").iterdir()
    assert len(records_of(file)) == 3
    assert run.metrics.count() == 2


@pytest.mark.django_db
def test_an_attempt_that_has_lost_its_lease_writes_no_event(run):
    TrainingRun.objects.update(attempt=2)
    with pytest.raises(Exception, match="is over"):
        _take_in_metrics(run, Lines(line(1, 0.7)))
    assert not event_folder(run).exists()


@pytest.mark.django_db
def test_a_folder_that_can_not_be_written_holds_up_no_run(run, tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    _take_in_metrics(run, Lines(line(1, 0.7)))
    assert run.metrics.count() == 1
    assert "can't be written" in capsys.readouterr().err


@pytest.mark.django_db
def test_a_resumed_attempt_says_from_which_step_it_goes_on(run):
    write_tensorboard(run, [line(1, 0.7), line(2, 0.6), line(3, 0.5)])
    run.attempt = 2
    write_tensorboard(run, [line(3, 0.4), line(4, 0.3)])
    _, second = sorted(event_folder(run).iterdir())
    assert b"\x10\x03\x3a\x02\x08\x01" in records_of(second)[1]  # step 3, a session starts


@pytest.mark.django_db
def test_the_tracker_comes_from_one_setting(run, round):
    assert tracker_of(run) is None
    with override_settings(TRACKER="mlflow"):
        told = tracker_of(run)
        assert (told["to"], told["project"], told["run"]) == ("mlflow", "tea", f"dpo-{str(run.pk)[:8]}")
        run.round = round
        assert tracker_of(run)["run"] == f"round-{round.number}-dpo"
