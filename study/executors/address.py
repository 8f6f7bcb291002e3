"""Address of a Ray cluster: whether one answers there, asked before Ray itself, which would wait for minutes."""

from __future__ import annotations

import socket
import time

SECONDS_TO_REACH = 10.0
# The opening of an HTTP/2 connection, which gRPC speaks: preface and empty settings (RFC 9113, sections 3.4 and 6.5).
HTTP2_OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
# A call that only a cluster's own port knows. Elsewhere gRPC answers at once, with status 12, unimplemented.
CALL = "/ray.rpc.NodeInfoGcsService/CheckAlive"
UNIMPLEMENTED = b"grpc-status\x0212"
PORTS = "Ray's own port is 6379 unless told otherwise; 8265 is its dashboard, 10001 that of its client"


def check_reachable(address: str) -> None:
    """Raises ValueError where nothing listens at the address, or something other than a cluster's own port."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise ValueError(f"--address must be auto or HOST:PORT of a Ray cluster, got {address!r}")
    try:
        with socket.create_connection((host, int(port)), timeout=SECONDS_TO_REACH) as there:
            is_cluster = _answers(there, address)
    except TimeoutError:
        is_cluster = False
    except (OSError, OverflowError) as error:
        raise ValueError(f"--address must name a running Ray cluster, got {address!r}: {error}") from None
    if not is_cluster:
        raise ValueError(
            f"--address must name a running Ray cluster, got {address!r}, where something else listens ({PORTS})"
        )


def _answers(there: socket.socket, address: str) -> bool:
    """Whether a gRPC server answers that knows the call: with data, or with any refusal but that it knows none."""
    there.sendall(HTTP2_OPENING)
    kind, _, _ = _frame(there)
    if kind != SETTINGS:
        return False
    fields = {":method": "POST", ":scheme": "http", ":path": CALL, ":authority": address}
    fields |= {"te": "trailers", "content-type": "application/grpc"}
    # Literal fields, not indexed (RFC 7541, section 6.2.2); then an empty message.
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
    there.sendall(_framed(HEADERS, END_HEADERS, block) + _framed(DATA, END_STREAM, bytes(5)))
    end = time.monotonic() + SECONDS_TO_REACH
    while time.monotonic() < end:
        kind, flags, content = _frame(there)
        if kind == DATA:
            return True
        if kind == HEADERS and flags & END_STREAM:
            return UNIMPLEMENTED not in content
        if kind is None:
            return False
    return False


def _frame(there: socket.socket) -> tuple[int | None, int, bytes]:
    """The next frame's type, flags and content; no type where the connection ends, or it is no HTTP/2."""
    head = _read(there, 9)
    if len(head) < 9:
        return None, 0, b""
    length = int.from_bytes(head[:3], "big")
    # A frame is at most as long as we agreed to; of an answer that is no HTTP/2 these bytes are text.
    return (head[3], head[4], _read(there, length)) if length <= 1 << 14 else (None, 0, b"")


def _read(there: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count and (more := there.recv(count - len(content))):
        content += more
    return content


def _framed(kind: int, flags: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + (1).to_bytes(4, "big") + content


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
