"""Event files, as TensorBoard reads them, written without TensorBoard or torch. Pure.

The format is two small standards. A file is a row of records: length (8 bytes), its checksum, content, its checksum;
the checksum is CRC-32C, rotated and shifted. The content is an `Event` of protocol buffers: wall time, step, scalars.
One file per attempt of a run, in one folder: TensorBoard reads them by name, one after the other.
"""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

Scalars = Mapping[str, float]


def write_events(
    folder: Path, attempt: int, rows: Iterable[tuple[float, int, Scalars]], *, begins_at: int | None = None
) -> Path:
    """Add rows of (wall time, step, scalars) to the file of an attempt, and return the file.

    `begins_at` is the first step of a resumed attempt: what an earlier one wrote from there on is not shown any more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # TensorBoard wants these words in the name, and takes the files in the order of their names.
    file = folder / f"events.out.tfevents.{attempt:010}.rankloop"
    rows = list(rows)
    with file.open("ab") as opened:
        if opened.tell() == 0 and rows:
            opened.write(_record(_event(rows[0][0], 0, version=b"brain.Event:2")))
            if begins_at is not None:
                opened.write(_record(_event(rows[0][0], begins_at, starts=True)))
        for wall_time, step, scalars in rows:
            opened.write(_record(_event(wall_time, step, scalars=scalars)))
    return file


def _event(
    wall_time: float, step: int, *, version: bytes = b"", scalars: Scalars | None = None, starts: bool = False
) -> bytes:
    """tensorflow.Event: 1 wall_time, 2 step, 3 file_version, 5 summary {1 value {1 tag, 2 simple_value}}, 7 session."""
    content = _key(1, 1) + struct.pack("<d", wall_time)
    if step:
        content += _key(2, 0) + _varint(step)
    if version:
        content += _field(3, version)
    if scalars:
        values = (
            _field(1, tag.encode()) + _key(2, 5) + struct.pack("<f", value) for tag, value in scalars.items()
        )
        content += _field(5, b"".join(_field(1, value) for value in values))
    if starts:
        content += _field(7, _key(1, 0) + _varint(1))  # SessionLog.START
    return content


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _field(number: int, content: bytes) -> bytes:
    return _key(number, 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _masked(length) + content + _masked(content)


def _masked(content: bytes) -> bytes:
    checksum = crc32c(content)
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(content: bytes) -> int:
    """CRC-32 with Castagnoli's polynomial (RFC 3720)."""
    checksum = 0xFFFFFFFF
    for byte in content:
        checksum = checksum >> 8 ^ _TABLE[(checksum ^ byte) & 0xFF]
    return checksum ^ 0xFFFFFFFF
