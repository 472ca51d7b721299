"""Loop devices: a file as a block device, which goes by itself when nobody has it open any more."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from pathlib import Path

_GET_FREE = 0x4C82  # LOOP_CTL_GET_FREE, linux/loop.h
_CONFIGURE = 0x4C0A  # LOOP_CONFIGURE
_SET_CAPACITY = 0x4C07  # LOOP_SET_CAPACITY
_AUTOCLEAR = 4  # LO_FLAGS_AUTOCLEAR


class Loop:
    """A file as a block device.

    Args:
        file: is made, and has this size.
        size: bytes.
    """

    def __init__(self, file: Path, size: int) -> None:
        self.file = file
        with file.open("wb") as sparse:
            sparse.truncate(size)
        self._device, self.number = _take(file)
        self.device = os.fstat(self._device).st_rdev

    def grow(self, size: int) -> None:
        """Make it larger."""
        os.truncate(self.file, size)
        fcntl.ioctl(self._device, _SET_CAPACITY)

    def close(self) -> None:
        """Let go of it, and delete the file; who has it mounted keeps it until then."""
        os.close(self._device)
        self.file.unlink(missing_ok=True)


def _take(file: Path) -> tuple[int, int]:
    """Make a file a loop device. Returns: an open descriptor of that, and its number."""
    backing = os.open(file, os.O_RDWR)
    control = os.open("/dev/loop-control", os.O_RDWR)
    try:
        while True:
            number = fcntl.ioctl(control, _GET_FREE)
            node = Path(f"/dev/loop{number}")
            if not node.exists():  # a /dev that is no devtmpfs, as in a container
                os.mknod(node, stat.S_IFBLK | 0o660, os.makedev(7, number))
            device = os.open(node, os.O_RDWR)
            name = str(file).encode()[:63]
            info = struct.pack("<QQQQQIIII64s64s32sQQ", 0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR,
                               name, b"", b"", 0, 0)  # fmt: skip
            try:
                fcntl.ioctl(device, _CONFIGURE, struct.pack("<II232s64x", backing, 0, info))
            except OSError:
                os.close(device)
                if not _busy(number):
                    raise
                continue  # somebody else was quicker
            return device, number
    finally:
        os.close(control)
        os.close(backing)


def _busy(number: int) -> bool:
    return Path(f"/sys/block/loop{number}/loop").exists()


def left(folder: Path) -> list[str]:
    """Loop devices whose files lie below a folder."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if file.read_text().startswith(f"{folder}/"):
                found.append(file.parts[3])
        except OSError:
            continue
    return found
