"""Files compressed with gzip or Zstandard are unpacked once, piece by piece, with a limit on what comes out."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import zstandard

from tuneworth.errors import InputError, MachineError

PACKED = (".gz", ".zst")
MOST_BYTES = 64 << 30
"""No file may unpack to more."""
MOST_TIMES = 200
"""Past FREE_BYTES no file may unpack to more than this many times its size: real text shrinks 3 to 30 times, a bomb
1,000 times and more."""
FREE_BYTES = 64 << 20
_PIECE = 1 << 20
_SPARE_DISK = 256 << 20


def unpack(path: Path, scratch: Path) -> Path:
    """The unpacked copy of `path` in the folder `scratch`.

    Raises InputError when the file is damaged or unpacks to more than MOST_BYTES or MOST_TIMES its size, MachineError
    when the disk is full. Nothing is left in `scratch` then.
    """
    size = path.stat().st_size
    allowed = min(max(FREE_BYTES, MOST_TIMES * size), MOST_BYTES)
    with tempfile.NamedTemporaryFile(dir=scratch, prefix="unpacked-", delete=False) as target:
        copy = Path(target.name)
        try:
            with path.open("rb") as raw:
                written = 0
                for piece in _gzip_pieces(raw) if path.suffix.lower() == ".gz" else _zstd_pieces(raw):
                    written += len(piece)
                    if written > allowed:
                        raise _refused(path, f"unpacks to more than {allowed:,} bytes from {size:,}; it is refused")
                    if shutil.disk_usage(scratch).free < _SPARE_DISK:
                        raise MachineError(
                            f"the disk is full while {path.name} is unpacked",
                            where=str(scratch),
                            cure="free some space",
                        )
                    target.write(piece)
        except BaseException as error:
            copy.unlink()
            if isinstance(error, EOFError):
                raise _refused(path, "breaks off: the compressed file is not complete") from None
            if isinstance(error, gzip.BadGzipFile | zlib.error | zstandard.ZstdError):
                raise _refused(path, f"is damaged, or not compressed as its name says: {error}") from None
            raise
    return copy


def _gzip_pieces(raw: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=raw) as source:
        while piece := source.read(_PIECE):
            yield piece


def _zstd_pieces(raw: IO[bytes]) -> Iterator[bytes]:
    # A frame may ask for a window of gigabytes; 128 MiB is what the zstd program allows by default.
    decoder = zstandard.ZstdDecompressor(max_window_size=128 << 20)
    frame = decoder.decompressobj()
    # Four bytes can stand for a block of 128 KiB, so that 1 KiB at a time holds what comes out to 32 MiB.
    while packed := raw.read(1 << 10):
        while packed:
            if frame.eof:
                frame = decoder.decompressobj()
            yield frame.decompress(packed)
            packed = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise EOFError


def _refused(path: Path, what: str) -> InputError:
    cure = "compress it again, or unpack it yourself and give the file inside"
    return InputError(f"the file {what}", where=str(path), cure=cure, code="unpacking")
