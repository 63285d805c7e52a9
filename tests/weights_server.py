"""A server on loopback in the place of the one that publishes weights."""

import contextlib
import http.server
import threading


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; what each request does with its content is up to `answer`."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.requests = []
        self.answer = Handler.send_whole
        self.is_over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/models"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        folder, _, name = self.path.rpartition("/")
        content = self.server.files.get(name) if folder == "/models" else None
        if content is None:
            self.send_error(404)
        else:
            self.server.answer(self, content)

    def send_whole(self, content):
        self.send_part(content, len(content))

    def send_part(self, content, length):
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serve_weights(files, cache, monkeypatch):
    """Serve some files to a package with an empty cache."""
    monkeypatch.setenv("SQUEEZENET_HOME", str(cache))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(files) as server:
        monkeypatch.setenv("SQUEEZENET_WEIGHTS_URL", server.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.is_over.set()
        server.shutdown()
        thread.join()
