"""A real S3 endpoint in this process, and a real HTTP proxy before it that answers some requests with errors.

S3 checks a write's condition (If-Match, If-None-Match) and writes in one step. Moto checks first and writes later, and
lets another request in between; so the proxy hands it one write at a time.
"""

import http.client
import threading
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ERRORS = {
    500: ("InternalError", "We encountered an internal error. Please try again."),
    503: ("SlowDown", "Please reduce your request rate."),
}


class FaultyProxy:
    """Forwards to an endpoint. `fault(method, path)` gives None, or (status, whether to forward the request first)."""

    def __init__(self, endpoint):
        self.upstream = urlsplit(endpoint).netloc
        self.fault = lambda method, path: None
        self.requests = []
        self.faults = 0
        self.lock = threading.Lock()
        self.one_write_at_a_time = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                proxy.handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def handle(self, request):
        body = self.body_of(request)
        with self.lock:
            self.requests.append((request.command, request.path))
            fault = self.fault(request.command, request.path)
            self.faults += fault is not None
        if fault is None or fault[1]:
            reads = request.command in {"GET", "HEAD"}
            with nullcontext() if reads else self.one_write_at_a_time:
                status, headers, content = self.forward(request, body)
        if fault is not None:
            status, headers = fault[0], {"Content-Type": "application/xml"}
            code, message = ERRORS[status]
            content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        if "Content-Length" not in headers:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    def body_of(self, request):
        if request.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(request.rfile.readline(), 16):
                body += request.rfile.read(size)
                request.rfile.readline()
            request.rfile.readline()
            return body
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))

    def forward(self, request, body):
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            headers = {k: v for k, v in request.headers.items() if k.lower() not in {"transfer-encoding", "expect"}}
            headers["Content-Length"] = str(len(body))
            connection.request(request.command, request.path, body=body, headers=headers)
            response = connection.getresponse()
            content = response.read()
            dropped = {"transfer-encoding", "connection", "date", "server"}
            kept = {k: v for k, v in response.getheaders() if k.lower() not in dropped}
            return response.status, kept, content
        finally:
            connection.close()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@contextmanager
def s3_endpoint():
    """Start the endpoint and yield its URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
