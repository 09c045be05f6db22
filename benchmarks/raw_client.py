"""The cheapest client there can be: the same requests, and of every read only recvmsg. Prints CPU per token.

    python -m benchmarks.raw_client HOST PORT STREAMS TOKENS SECONDS [RAMP_S [NAP_S]]

It neither parses nor records; a stream's end is seen in its last five bytes. What it costs, no client can
go below without a different system call. With RAMP_S the streams begin one after the other over that time,
with NAP_S it sleeps so long between two looks at its sockets.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

_ANCILLARY_BYTES = socket.CMSG_SPACE(16)
_SO_TIMESTAMPNS = 35


def _request(host: str, port: int, tokens: int) -> bytes:
    body = json.dumps(
        {
            "model": "yi-6b",
            "messages": [{"role": "user", "content": "Explain why the sky is blue."}],
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "max_tokens": tokens,
            "min_tokens": tokens,
            "ignore_eos": True,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _open(host: str, port: int, poll: select.epoll) -> socket.socket:
    sock = socket.create_connection((host, port))
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sock.setblocking(False)
    poll.register(sock.fileno(), select.EPOLLIN)
    return sock


def measure(
    host: str, port: int, streams: int, tokens: int, seconds: float, ramp_s: float = 0.0, nap_s: float = 0.0
) -> dict[str, float]:
    """CPU microseconds per token of that many streams: answers begun within `seconds`, all to their end."""
    request = _request(host, port, tokens)
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    buffer = (memoryview(bytearray(1 << 18)),)
    reads = answers = ended = 0
    started_cpu, started = time.process_time(), time.monotonic()
    while ended < streams:
        while len(sockets) < streams and time.monotonic() - started >= ramp_s * len(sockets) / streams:
            sock = _open(host, port, poll)
            sockets[sock.fileno()] = sock
            sock.send(request)
            if len(sockets) == streams and not ramp_s:
                started_cpu = time.process_time()
        if nap_s:
            time.sleep(nap_s)
        for fd, _ in poll.poll(0.1 if len(sockets) == streams else 0.001, 512):
            sock = sockets[fd]
            count, _, _, _ = sock.recvmsg_into(buffer, _ANCILLARY_BYTES)
            reads += 1
            if bytes(buffer[0][count - 5 : count]) == b"0\r\n\r\n":
                answers += 1
                if time.monotonic() - started < seconds:
                    sock.send(request)
                else:
                    ended += 1
            elif not count:
                raise SystemExit("the server closed a connection")
    cpu_s = time.process_time() - started_cpu
    received = max(answers * tokens, 1)
    return {"cpu_us_per_token": cpu_s / received * 1e6, "tokens": received, "reads": reads}


if __name__ == "__main__":
    host, port, streams, tokens, *times = sys.argv[1:]
    print(json.dumps(measure(host, int(port), int(streams), int(tokens), *map(float, times))))
