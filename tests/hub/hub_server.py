"""A server that speaks as much of the Hugging Face Hub's API as a download needs, on 127.0.0.1, and can misbehave.

The Hub is http://127.0.0.1:PORT; large files are redirected to http://localhost:PORT, which is another host to a
client. A test changes an answer with `faults`: kind of request -> function(handler), which may answer by itself.
"""

import contextlib
import hashlib
import http.server
import json
import re
import ssl
import threading
import time
import urllib.parse


def git_hash(data):
    digest = hashlib.sha1(b"blob %d\0" % len(data))
    digest.update(data)
    return digest.hexdigest()


class Repo:
    """files: path -> text, bytes, or a map of a file."""

    def __init__(self, files):
        self.files = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
        self.etags = {path: hashlib.sha256(data).hexdigest() if self.is_lfs(path) else git_hash(data)
                      for path, data in self.files.items()}
        self.commit = hashlib.sha1(repr(sorted(self.etags.items())).encode()).hexdigest()
        self.refs = {"main": self.commit}

    def is_lfs(self, path):
        return path.endswith((".safetensors", ".gguf"))

    def etag(self, path):
        return self.etags[path]

    def entry(self, path):
        size = len(self.files[path])
        entry = {"type": "file", "oid": self.etags[path], "size": size, "path": path}
        if self.is_lfs(path):
            entry["oid"] = "0" * 40
            entry["lfs"] = {"oid": self.etag(path), "size": size, "pointerSize": 130}
        return entry


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        self.path, _, query = self.path.partition("?")
        self.query_text, self.query = query, urllib.parse.parse_qs(query)
        hub = self.hub
        with hub.lock:
            hub.requests.append((self.command, self.headers.get("Host"), self.path, dict(self.headers)))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for kind, pattern in (("revision", r"/api/models/([^/]+(?:/[^/]+)?)(?:/revision/(.+))?"),
                                  ("tree", r"/api/models/([^/]+(?:/[^/]+)?)/tree/([^/]+)"),
                                  ("resolve", r"/([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)"),
                                  ("cdn", r"/cdn/([0-9a-f]+)()()")):
                match = re.fullmatch(pattern, self.path)
                if match:
                    self.kind, self.groups = kind, [urllib.parse.unquote(g or "main") for g in match.groups()]
                    fault = hub.faults.get(kind)
                    if fault is None or not fault(self):
                        getattr(self, kind)(*self.groups)
                    return
            self.fail(404, "RepoNotFound")

    def send(self, status, body=b"", **headers):
        """A whole answer; names of headers with _ for -."""
        self.send_response(status)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        names.setdefault("Content-Length", len(body))
        for name, value in names.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status, code="", **headers):
        self.send(status, b"{}", X_Error_Code=code, **headers)

    def repo(self, name, revision):
        """(repo, commit), or None when the refusal was sent."""
        repo = self.hub.repos.get(name)
        if repo is None:
            self.fail(401 if "Authorization" not in self.headers else 404, "RepoNotFound")
        elif revision not in repo.refs and revision != repo.commit:
            self.fail(404, "RevisionNotFound")
        elif self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.fail(403 if "Authorization" in self.headers else 401, "GatedRepo")
        else:
            return repo, repo.refs.get(revision, repo.commit)
        return None

    def revision(self, name, revision):
        found = self.repo(name, revision)
        if found:
            repo, commit = found
            answer = {"_id": "1", "id": name, "sha": commit, "private": False, "tags": [],
                      "siblings": [{"rfilename": path} for path in repo.files]}
            self.send(200, json.dumps(answer).encode(), Content_Type="application/json")

    def tree(self, name, revision):
        found = self.repo(name, revision)
        if not found:
            return
        recursive = self.query.get("recursive", ["false"])[0].lower() == "true"
        entries = [found[0].entry(path) for path in sorted(found[0].files) if recursive or "/" not in path]
        start, size = int(self.query.get("cursor", ["0"])[0]), self.hub.page_size
        headers = {}
        if start + size < len(entries):
            headers["Link"] = f'<{self.hub.endpoint}{self.path}?recursive={recursive}&cursor={start + size}>; rel="next"'
        self.send(200, json.dumps(entries[start:start + size]).encode(), Content_Type="application/json", **headers)

    def resolve(self, name, revision, path):
        found = self.repo(name, revision)
        if not found:
            return
        repo, commit = found
        if path not in repo.files:
            self.fail(404, "EntryNotFound", X_Repo_Commit=commit)
        elif repo.is_lfs(path):
            etag = repo.etag(path)
            self.send(302, b"", Location=f"{self.hub.cdn}/cdn/{etag}?signature=1", X_Repo_Commit=commit,
                      X_Linked_Etag=f'"{etag}"', X_Linked_Size=len(repo.files[path]))
        else:
            self.data(repo.files[path], ETag=f'"{repo.etag(path)}"', X_Repo_Commit=commit)

    def cdn(self, etag, *_):
        assert "Authorization" not in self.headers
        for repo in self.hub.repos.values():
            for path in repo.files:
                if repo.etag(path) == etag:
                    return self.data(repo.files[path], ETag='"of-the-cdn"')
        return self.fail(404)

    def asked_range(self, size):
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        return match and (int(match[1]), min(int(match[2] or size - 1), size - 1))

    def data(self, data, **headers):
        """A file, or the range that was asked for, as fast as `rate` allows."""
        asked = self.asked_range(len(data)) if self.hub.ranges else None
        if asked:
            headers["Content-Range"] = f"bytes {asked[0]}-{asked[1]}/{len(data)}"
            data = memoryview(data)[asked[0]:asked[1] + 1]
        data = memoryview(data)
        self.send_response(206 if asked else 200)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.body(data)

    def body(self, data):
        step = 1 << 18
        for at in range(0, len(data), step):
            self.wfile.write(data[at:at + step])
            with self.hub.lock:
                self.hub.sent += len(data[at:at + step])
            if self.hub.rate:
                time.sleep(step / self.hub.rate)


class Hub:
    """The server's state. rate: bytes a second for each connection; token: what a reader must show."""

    def __init__(self, port):
        self.lock = threading.Lock()
        self.repos, self.faults, self.requests = {}, {}, []
        self.page_size, self.token, self.ranges, self.rate, self.sent = 1000, None, True, None, 0
        self.endpoint, self.cdn = f"http://127.0.0.1:{port}", f"http://localhost:{port}"

    def add(self, name, files):
        self.repos[name] = Repo(files)
        return self.repos[name]

    def asked(self, part):
        """The requests whose path has `part`."""
        with self.lock:
            return [r for r in self.requests if part in r[2]]


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass


@contextlib.contextmanager
def serve(certificate=None):
    """certificate: (file, file of its key), for https."""
    handler = type("HubHandler", (Handler,), {})
    server = Server(("127.0.0.1", 0), handler)
    handler.hub = Hub(server.server_address[1])
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield handler.hub
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":  # for trying by hand and for bench/: serves folders as OWNER/NAME
    import mmap
    import os
    import pathlib
    import sys

    with serve() as hub:
        for name, folder in (argument.split("=", 1) for argument in sys.argv[1:]):
            hub.add(name, {p.name: mmap.mmap(os.open(p, os.O_RDONLY), 0, prot=mmap.PROT_READ)
                           for p in pathlib.Path(folder).iterdir() if p.is_file() and p.stat().st_size})
        print(hub.endpoint, flush=True)
        threading.Event().wait()
