"""A proxy before a server that fails one request: over real sockets, in all the ways there are."""

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

#: How a request may fail: its connection is closed before it is read; or after it was executed and
#: half of the answer sent; it is refused by a status; it is executed, and no answer comes.
STATUSES = ("408", "429", "500", "503", "507")
KINDS = ("refused", "reset", *STATUSES, "time-out")


class FailingProxy:
    """Passes requests on to `to`, but for one.

    Attributes
    ----------
    url : str
        Its own.
    seen : list of bytes
        The first lines of the requests since `fail_at`.
    failed : bool
        Whether the one that was to fail came.
    """

    def __init__(self, to: str, ca_cert: Path | None = None, delay: float = 1.0) -> None:
        self.seen: list[bytes] = []
        self.failed = False
        self._at, self._kind = -1, ""
        self._lock = threading.Lock()
        self._delay = delay
        parts = urlsplit(to)
        self._to = parts.hostname, parts.port or 6333
        self._tls = ssl.create_default_context(cafile=ca_cert) if parts.scheme == "https" else None
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def fail_at(self, number: int, kind: str) -> None:
        """Let the request of this number, from 0 and from now on, fail once; -1 for none."""
        with self._lock:
            self.seen, self.failed = [], False
            self._at, self._kind = number, kind

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        """Answer one request, and close its connection."""
        with near, contextlib.suppress(OSError):
            request = _read(near)
            kind = self._next(request)
            if kind == "refused":
                return _reset(near)
            if kind in STATUSES:
                body = json.dumps({"status": {"error": f"{kind} by the test"}}).encode()
                head = f"HTTP/1.1 {kind} Failed\r\nContent-Length: {len(body)}\r\n\r\n"
                return near.sendall(head.encode() + body)
            answer = self._ask(request)
            if kind == "reset":
                near.sendall(answer[: len(answer) // 2])
                return _reset(near)
            if kind == "time-out":
                time.sleep(self._delay)
            near.sendall(answer)
        return None

    def _next(self, request: bytes) -> str | None:
        with self._lock:
            self.seen.append(request.partition(b"\r\n")[0])
            if len(self.seen) - 1 != self._at:
                return None
            self.failed = True
            return self._kind

    def _ask(self, request: bytes) -> bytes:
        line, _, rest = request.partition(b"\r\n")
        with socket.create_connection(self._to) as plain:
            far = plain if self._tls is None else self._tls.wrap_socket(plain)
            far.sendall(line + b"\r\nConnection: close\r\n" + rest)
            parts = []
            while part := far.recv(2**16):
                parts.append(part)
        return b"".join(parts)


def _read(near: socket.socket) -> bytes:
    """Read one request, without the header that wants the connection kept."""
    head, length = b"", 0
    while b"\r\n\r\n" not in head:
        if not (part := near.recv(2**16)):
            raise ConnectionError
        head += part
    head, _, body = head.partition(b"\r\n\r\n")
    lines = []
    for line in head.split(b"\r\n"):
        name = line.partition(b":")[0].lower()
        if name == b"content-length":
            length = int(line.partition(b":")[2])
        if name != b"connection":
            lines.append(line)
    while len(body) < length:
        body += near.recv(2**16)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _reset(near: socket.socket) -> None:
    """Have the other end told at once, and impolitely, that nobody is here any more."""
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
