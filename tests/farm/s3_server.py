"""An S3 server on loopback behind a proxy that goes away, loses answers, and says that the disk is full."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "bucket"

Reply = Callable[[bytes], bytes | None]
"""what is answered to a request in place of the server, by its first bytes"""


class Proxy:
    """Forwards bytes to the server, and remembers the first line of each request."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.requests: list[str] = []
        self.reply: Reply = lambda request: None
        self.lost_answers = 0
        """so many uploads arrive at the server, and whoever sent them never hears of it"""
        self._clients: set[socket.socket] = set()
        self.port = 0
        self.start()

    def start(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and drop those that there are."""
        for one in (self._listening, *self._clients):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def uploads(self, text: str) -> list[str]:
        """Requests that write something whose name has a text in it."""
        return [line for line in self.requests if line.startswith(("PUT", "POST")) and text in line]

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._clients.add(client)
        with closing(client), closing(socket.create_connection(self.target)) as server, suppress(OSError):
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()
            while chunk := client.recv(1 << 16):
                if chunk.startswith((b"PUT /", b"GET /", b"HEAD /", b"POST /")):
                    self.requests.append(chunk.split(b"\r\n", 1)[0].decode())
                    answer = self.reply(chunk)
                    if answer is not None:
                        client.sendall(answer)
                        break
                server.sendall(chunk)
        self._clients.discard(client)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while chunk := server.recv(1 << 16):
                if self.lost_answers and self.requests[-1].startswith("PUT"):
                    self.lost_answers -= 1
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(chunk)


def error(status: str, code: str, message: str) -> bytes:
    """An error as S3 servers answer it."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}"
    return f"{head}\r\nConnection: close\r\n\r\n{body}".encode()


def disk_full(request: bytes) -> bytes | None:
    """What MinIO answers to an upload when its disk is full."""
    if not request.startswith(b"PUT"):
        return None
    return error("507 Insufficient Storage", "XMinioStorageFull", "Storage backend has reached its minimum.")


def objects(proxy: Proxy) -> dict[str, bytes]:
    """Every object of the bucket, read past the farm and the proxy."""
    client = _client(proxy.target)
    names = [one["Key"] for one in client.list_objects_v2(Bucket=BUCKET).get("Contents", ())]
    return {name: client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}


def put(proxy: Proxy, name: str, content: bytes) -> None:
    """Write an object past the farm and the proxy."""
    client = _client(proxy.target)
    client.put_object(Bucket=BUCKET, Key=name, Body=content)


@contextmanager
def s3_server() -> Iterator[Proxy]:
    """A server with an empty bucket, and the proxy in front of it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        proxy = Proxy(server.get_host_and_port())
        _client(proxy.target).create_bucket(Bucket=BUCKET)
        yield proxy
        proxy.stop()
    finally:
        server.stop()


def _client(server: tuple[str, int]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://{server[0]}:{server[1]}",
        region_name="us-east-1",
        aws_access_key_id="of-the-tests",
        aws_secret_access_key="of-the-tests",
    )
