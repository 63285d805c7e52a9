"""Fetching published weight files once: over HTTPS, checked against their hash, kept in a cache.

The cache is `$SQUEEZENET_HOME`, or `~/.cache/squeezenet`; a mirror can be named in `$SQUEEZENET_WEIGHTS_URL`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import io
import ipaddress
import os
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DownloadError
from ..files import atomic_write, cache_folder, remove_leftovers
from ..progress import Reporter, SilentReporter, reporter_of
from ..text import printable

__all__ = ["WEIGHTS_URL", "fetch_weights"]

WEIGHTS_URL = "https://download.pytorch.org/models"
"""Address of torchvision's published weights."""

MAX_DOWNLOAD_BYTES = 16 << 20  # the published files have less than 5 MB
STALL_TIMEOUT_S = 20.0  # for the connection and for every read
TOTAL_TIMEOUT_S = 600.0
_CHUNK_BYTES = 1 << 16
_LEFTOVER_AGE_S = 3600.0  # of temporary files that no download can still be writing


def fetch_weights(
    file_name: str, *, sha256: str | None = None, base_url: str | None = None, progress: Reporter | bool = True
) -> Path:
    """Return a published file from the cache, after downloading it if necessary.

    A file is stored in the cache only when it is complete and its hash is correct. An interrupted download leaves
    nothing behind, and the next call starts again. Once the file is in the cache, no network is needed.

    Args:
        file_name: Published name, with the first digits of the file's SHA-256 in it, as in `name-b8a52dc0.pth`.
        sha256: The file's full digest in hex, or its first digits; by default those in its name.
        base_url: Address of the folder it is published in. Default: `$SQUEEZENET_WEIGHTS_URL`, or `WEIGHTS_URL`.
        progress: A `Reporter` that shows progress; True for one on standard error, False for none.

    Returns:
        Path of the file; its hash has been checked.

    Raises:
        DownloadError: If the file cannot be downloaded or stored, or its hash is wrong; the message states what to do.
    """
    if sha256 is None:
        match = re.search(r"-([0-9a-f]{8,64})\.", file_name)
        assert match, f"{file_name} holds no hash"
        sha256 = match[1]
    base_url = base_url or os.environ.get("SQUEEZENET_WEIGHTS_URL") or WEIGHTS_URL
    url = f"{base_url.rstrip('/')}/{file_name}"
    path = cache_folder() / file_name
    try:
        if path.is_file() and _sha256(path).startswith(sha256):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, min_age_s=_LEFTOVER_AGE_S)
        if path.is_symlink():  # in a folder that others write to, it may lead to any of the user's files
            path.unlink()
        with atomic_write(path) as stream:
            digest = _download(url, stream, name=file_name, reporter=reporter_of(progress))
            if not digest.startswith(sha256):
                raise DownloadError(f"expected a SHA-256 that starts with {sha256}, got {digest[: len(sha256)]}")
    # HTTPException: an answer that breaks the protocol. ValueError: something that is not an address.
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = printable(getattr(error, "reason", None) or str(error) or type(error).__name__)
        raise DownloadError(
            f"{file_name} could not be fetched from {url} ({reason}): check the network,"
            f" or put the file at {path} yourself, or name a mirror in SQUEEZENET_WEIGHTS_URL"
        ) from None
    return path


def _download(url: str, stream: BinaryIO, *, name: str, reporter: Reporter) -> str:
    """Copy the server's response to a stream, within the limits; return its SHA-256 in hex."""
    _check_address(url)
    deadline_s = time.monotonic() + TOTAL_TIMEOUT_S
    digest = hashlib.sha256()
    received_bytes = 0
    request = urllib.request.Request(url, headers={"User-Agent": "squeezenet"})
    try:
        response = urllib.request.build_opener(_Timed(deadline_s), _Redirects()).open(request, timeout=STALL_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:  # it is the answer, with an open connection
            raise DownloadError(f"HTTP {error.code} {error.reason}") from None
    with response:
        expected_bytes = response.length  # None if the server does not say
        reporter.say(f"downloading {name}" + (f" ({expected_bytes / 1e6:.1f} MB)" if expected_bytes else ""))
        known = reporter if expected_bytes else SilentReporter()
        with known.task(name, (expected_bytes or 0) // 1000, "kB") as task:
            while chunk := response.read1(_CHUNK_BYTES):
                received_bytes += len(chunk)
                if received_bytes > MAX_DOWNLOAD_BYTES:
                    raise DownloadError(f"expected at most {MAX_DOWNLOAD_BYTES} bytes")
                stream.write(chunk)
                digest.update(chunk)
                task.update(received_bytes // 1000)
    if expected_bytes not in (None, received_bytes):
        raise DownloadError(f"expected {expected_bytes} bytes, got {received_bytes}")
    return digest.hexdigest()


def _check_address(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    is_loopback = parts.hostname == "localhost"
    with contextlib.suppress(ValueError):
        is_loopback |= ipaddress.ip_address(parts.hostname or "").is_loopback
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback):  # urllib opens local files, too
        raise DownloadError("expected an https:// address, or an http:// one of this machine")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects only within the same scheme: over plain HTTP, the file could be replaced."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        with contextlib.ExitStack() as stack:
            stack.enter_context(fp)
            if urllib.parse.urlsplit(newurl).scheme != urllib.parse.urlsplit(req.full_url).scheme:
                raise DownloadError(f"HTTP {code} leads to {newurl}, another kind of address, which is not followed")
            _check_address(newurl)
            stack.pop_all()
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _TimedReader(io.RawIOBase):
    """Reads from a socket until a deadline, even if the data arrives slowly."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, deadline_s: float) -> None:
        self._socket, self._raw, self._deadline_s = sock, raw, deadline_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._deadline_s - time.monotonic()
        if left_s > 0:
            self._socket.settimeout(min(STALL_TIMEOUT_S, left_s))
            with contextlib.suppress(TimeoutError) if left_s < STALL_TIMEOUT_S else contextlib.nullcontext():
                return self._raw.readinto(buffer)
        raise DownloadError(f"not complete after {TOTAL_TIMEOUT_S:.0f} s")

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, deadline_s: float, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_TimedReader(sock, self.fp.detach(), deadline_s))


class _Timed(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    def __init__(self, deadline_s: float) -> None:
        super().__init__()
        self._deadline_s = deadline_s

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_connect, http.client.HTTPConnection, self._deadline_s), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_connect, http.client.HTTPSConnection, self._deadline_s), req)


def _connect(
    kind: type[http.client.HTTPConnection], deadline_s: float, host: str, **options: Any
) -> http.client.HTTPConnection:
    connection = kind(host, **options)
    connection.response_class = functools.partial(_TimedResponse, deadline_s=deadline_s)  # type: ignore[assignment]
    return connection


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
