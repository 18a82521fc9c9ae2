"""Files at an address (`https://`, `s3://`, `hf://` ...), opened through fsspec as they are stored."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

from tutelage.errors import DataError, MachineError, Problem

_PACKAGES = {"hf": '"tutelage[hub]"', "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
_PACKAGES |= dict.fromkeys(("az", "abfs", "abfss"), "adlfs")
_SILENCE = 60
"""Seconds without a byte after which a server counts as gone; a long transfer takes as long as it takes."""


def scheme(address: str) -> str:
    """Return what stands before `://`."""
    return address.partition("://")[0].lower()


def open_address(address: str) -> BinaryIO:
    """Open the bytes at an address.

    Raises `DataError` when there is no such file, `MachineError` when a package for the address is missing.
    """
    try:
        import fsspec  # type: ignore[import-untyped]

        over_http = scheme(address) in ("http", "https")
        file = fsspec.open(address, "rb", **(_http_options() if over_http else {})).open()
    except ImportError as error:
        raise missing_package(address, str(error), _PACKAGES.get(scheme(address), '"tutelage[remote]"')) from error
    except Exception as error:  # every file system has errors of its own
        found = "it is not a local path, and the address gave no file"
        raise unreachable(address, found, error.__cause__ or error, fix="correct the address") from error
    return cast(BinaryIO, _Transfer(file, seekable=not over_http))


def _http_options() -> dict[str, Any]:
    """Return options with which a server's bytes arrive in order, as they are stored, however long that takes."""
    from aiohttp import ClientTimeout

    return {
        "block_size": 0,  # one stream: many servers cannot give ranges
        "headers": {"Accept-Encoding": "identity"},
        "client_kwargs": {
            "auto_decompress": False,
            "timeout": ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE),
        },
    }


def glob_address(pattern: str) -> list[str]:
    """List the files that a pattern at an address stands for, sorted."""
    try:
        import fsspec

        system, inside = fsspec.core.url_to_fs(pattern)
        return [system.unstrip_protocol(name) for name in sorted(system.glob(inside)) if system.isfile(name)]
    except ImportError as error:
        raise missing_package(pattern, str(error), _PACKAGES.get(scheme(pattern), '"tutelage[remote]"')) from error
    except Exception as error:
        raise unreachable(pattern, "the address gave no list", error, fix="correct the address") from error


class _Transfer(io.RawIOBase):
    """A file elsewhere; whatever breaks while it is read is an `OSError`."""

    def __init__(self, file: Any, *, seekable: bool) -> None:
        self._file, self._seekable = file, seekable

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except Exception as error:
            raise OSError(f"the transfer broke off ({str(error) or type(error).__name__})") from error
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def unreachable(path: str, found: str, error: BaseException, fix: str) -> DataError:
    """Make the error for an address or hub id that gave nothing."""
    fix = f"{fix}, or connect to the network"
    why = str(error) or type(error).__name__
    return DataError(Problem("data/missing-file", f"`{path}` was not found", path, f"{found} ({why})", fix=fix))


def missing_package(path: str, found: str, package: str) -> MachineError:
    """Make the error for an optional package that is not installed."""
    what = f"reading `{path}` needs an optional package"
    return MachineError(Problem("machine/missing-package", what, path, found, fix=f"pip install {package}"))
