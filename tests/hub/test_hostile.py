"""Servers that refuse, lie, or attack: one clear line, nothing outside the cache, no token given away, no hang."""

import base64
import gzip
import http.server
import json
import os
import socket
import subprocess
import threading
import time
import urllib.request

import pytest
from snapshots import check_snapshot, needed


@pytest.fixture(autouse=True)
def one_model(hub, tiny):
    return hub.add("org/tiny", tiny)


def once(answer):
    """A fault that happens to the first request alone."""
    done = []

    def fault(handler):
        if done:
            return False
        done.append(1)
        answer(handler)
        return True

    return fault


def always(answer):
    def fault(handler):
        answer(handler)
        return True

    return fault


# ---- refusals ----


def test_gated(hub, pull_fails, pull, tiny):
    hub.token = "hf_secret"
    pull_fails("org/tiny is gated", f"accept its conditions at {hub.endpoint}/org/tiny", "HF_TOKEN")
    pull_fails("org/tiny is gated", HF_TOKEN="hf_other")
    check_snapshot(pull(HF_TOKEN=" hf_secret\n"), needed(tiny))


def test_token_file(hub, tmp_path, pull):
    hub.token = "hf_secret"
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text("hf_secret\n")
    pull(HF_HOME=str(home))


def test_token_is_refused(hub, pull_fails):
    hub.faults["revision"] = always(
        lambda h: h.send(401, b"{}", X_Error_Message="Invalid credentials in Authorization header"))
    pull_fails("refuses the access token", HF_TOKEN="x")


def test_token_with_a_line_break(hub, pull_fails):
    pull_fails("characters that no token has", HF_TOKEN="a\nX-Evil: 1")
    assert not hub.requests


def test_token_goes_to_the_hub_alone(hub, pull):
    hub.token = "hf_secret"
    pull(HF_TOKEN="hf_secret")
    assert hub.asked("/cdn/")
    for _, host, path, headers in hub.requests:
        assert ("Authorization" in headers) == (host.startswith("127.0.0.1") and "/cdn/" not in path), path


def test_forbidden(hub, pull_fails):
    hub.faults["revision"] = always(lambda h: h.send(403, b"{}", X_Error_Message="no\x1b[2Jaccess"))
    pull_fails("does not let you read org/tiny: no [2Jaccess")


def test_file_is_gone(hub, pull_fails):
    hub.faults["resolve"] = always(lambda h: h.fail(404, "EntryNotFound"))
    pull_fails("org/tiny has no file")


@pytest.mark.parametrize("kind", ["revision", "tree", "resolve", "cdn"])
def test_rate_limit_that_passes(hub, pull, kind):
    hub.faults[kind] = once(lambda h: h.send(429, b"", Retry_After=1))
    start = time.monotonic()
    pull()
    assert time.monotonic() - start >= 1


def test_rate_limit_of_the_draft(hub, pull):
    hub.faults["revision"] = once(lambda h: h.send(429, b"", RateLimit='"api";r=0;t=1'))
    pull()


@pytest.mark.parametrize("kind", ["revision", "cdn"])
def test_rate_limit_that_is_too_long(hub, pull_fails, kind):
    hub.faults[kind] = always(lambda h: h.send(429, b"", Retry_After=86400))
    pull_fails("rate limit", "86400 seconds")


@pytest.mark.parametrize("kind", ["revision", "tree", "resolve", "cdn"])
@pytest.mark.parametrize("status", [500, 503])
def test_server_errors_that_pass(hub, pull, kind, status):
    hub.faults[kind] = once(lambda h: h.send(status, b"x" * 100))
    pull()


def test_server_errors_that_stay(hub, pull_fails):
    hub.faults["tree"] = always(lambda h: h.send(503, b""))
    pull_fails("answers 503", "try again later")


def test_signatures_that_expire(hub, pull, tiny):
    """The address that the Hub redirected to stops working; the Hub gives another one."""
    hub.faults["cdn"] = once(lambda h: h.send(403, b"<Error>expired</Error>"))
    check_snapshot(pull(), needed(tiny))


# ---- networks ----


def test_nobody_there(hub, pull, pull_fails):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        pull_fails("cannot reach http://127.0.0.1", HF_ENDPOINT=f"http://127.0.0.1:{s.getsockname()[1]}")
    pull_fails("cannot reach http://no.such.host.invalid", HF_ENDPOINT="http://no.such.host.invalid")
    pull_fails("HF_ENDPOINT is no web address", HF_ENDPOINT="file:///etc/passwd", code=2)
    nowhere = {"HF_ENDPOINT": "http://no.such.host.invalid"}
    pull_fails("cannot reach", "here is no folder or file modles, nor all of such a model", name="modles", **nowhere)
    pull()
    pull_fails("cannot reach", "org/tiny is here as it was before", **nowhere)
    pull_fails("here is no folder or file org/tinny", "did you mean org/tiny", name="org/tinny", **nowhere)
    pull_fails("HF_ENDPOINT is no web address", HF_ENDPOINT="nonsense://x", code=2)


def test_proxy(hub, pull_fails):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        pull_fails("cannot reach", http_proxy=f"http://127.0.0.1:{s.getsockname()[1]}")
    pull_fails("proxy", http_proxy="http://no.such.proxy.invalid:1")


class Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy that wants the password "geheim" and gives what is in `answer`."""

    def answer(self):
        wanted = "Basic " + base64.b64encode(b"me:geheim").decode()
        if self.headers.get("Proxy-Authorization") != wanted:
            self.send_response(407)
            self.send_header("Proxy-Authenticate", 'Basic realm="office"')
        elif self.command == "CONNECT":
            self.send_response(403)
        else:
            with urllib.request.urlopen(self.path) as answer:
                body = answer.read()
            self.send_response(200)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_CONNECT = answer

    def log_message(self, *args):
        pass


@pytest.fixture
def proxy():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_proxy_with_a_password(hub, proxy, pull, pull_fails, tiny):
    words = "the proxy wants a name and a password (407)", "https_proxy=http://NAME:PASSWORD@HOST:PORT"
    pull_fails(*words, http_proxy=f"http://{proxy}")
    assert "secret" not in pull_fails(*words, http_proxy=f"http://me:secret@{proxy}").stderr
    for user in ("", "me:secret@"):
        done = pull_fails(*words, https_proxy=f"http://{user}{proxy}", HF_ENDPOINT="https://localhost:1")
        assert "secret" not in done.stderr and "trying again" not in done.stderr
    pull_fails("the proxy", "answers 403", https_proxy=f"http://me:geheim@{proxy}", HF_ENDPOINT="https://localhost:1")
    assert not hub.requests
    check_snapshot(pull(http_proxy=f"http://me:geheim@{proxy}", no_proxy="localhost"), needed(tiny))


def test_proxy_that_loses_its_trust(hub, proxy, pull_fails):
    """The Hub can be reached, and the host that it redirects to through a proxy alone."""
    pull_fails("the proxy wants", http_proxy=f"http://{proxy}", no_proxy="127.0.0.1")


def test_tls_is_verified(hub, tmp_path, pull_fails, mlxbench_run):
    """A server with a certificate that nobody has signed; SSL_CERT_FILE is how a user trusts it."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days",
                    "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True,
                   capture_output=True)
    import hub_server

    with hub_server.serve(certificate=(cert, key)) as secure:
        secure.repos = hub.repos
        secure.endpoint = secure.endpoint.replace("http://127.0.0.1", "https://localhost")
        secure.cdn = secure.endpoint
        pull_fails("TLS", "SSL_CERT_FILE", HF_ENDPOINT=secure.endpoint)
        assert not secure.requests
        done = mlxbench_run("pull", "org/tiny", HF_ENDPOINT=secure.endpoint, SSL_CERT_FILE=str(cert))
        assert done.returncode == 0, done.stderr
        secure.cdn = hub.cdn  # http
        secure.repos = {"org/other": type(hub.repos["org/tiny"])({**hub.repos["org/tiny"].files,
                                                                  "model.safetensors": b"other"})}
        pull_fails("without TLS", name="org/other", HF_ENDPOINT=secure.endpoint, SSL_CERT_FILE=str(cert))


def test_library_is_missing(pull_fails, mlxbench_run):
    pull_fails("needs libcurl", "libcurl4", MLXBENCH_LIBCURL="/no/such/library.so")
    assert mlxbench_run("models", MLXBENCH_LIBCURL="/no/such/library.so").returncode == 0


# ---- lies ----


def outside(tmp_path):
    """Everything below the user's folder that is not the cache."""
    return {str(p) for p in tmp_path.rglob("*") if "hub" not in p.relative_to(tmp_path).parts[:1]}


@pytest.mark.parametrize("path", ["../../../../evil.json", "/tmp/mlxbench-evil.json", "a/../../evil.json", "..", ".", "",
                                  "config.json/../../../../x.json", "a\\..\\evil.json", "x\n.json", "./config.json"])
def test_paths_that_lead_out(hub, tmp_path, pull, pull_fails, tiny, path):
    repo = hub.repos["org/tiny"]
    entries = [repo.entry(name) for name in repo.files if "/" not in name]
    entries += [{**repo.entry("config.json"), "path": path}]
    hub.faults["tree"] = always(lambda h: h.send(200, json.dumps(entries).encode()))
    before = outside(tmp_path)
    check_snapshot(pull(), needed(tiny))
    assert outside(tmp_path) == before


@pytest.mark.parametrize("change", [{"oid": "../../../x"}, {"oid": "0" * 39}, {"oid": None}, {"size": -1}, {"size": 1e300},
                                    {"size": "1"}, {"size": 0.5}, {"lfs": {"size": 1}}, {"lfs": {"oid": "x", "size": 1}}])
def test_impossible_lists(hub, pull_fails, change):
    repo = hub.repos["org/tiny"]
    entries = [{**repo.entry("config.json"), **change}]
    hub.faults["tree"] = always(lambda h: h.send(200, json.dumps(entries).encode()))
    pull_fails("list of files")


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[1, null, {}]", b"\xff\xfe", b'{"sha": "../../.."}', b"[" * 100000,
                                  b'{"sha": 1}', b"null"])
@pytest.mark.parametrize("kind", ["revision", "tree"])
def test_broken_json(hub, pull_fails, kind, body):
    hub.faults[kind] = always(lambda h: h.send(200, body))
    pull_fails("the Hub" if body != b"[1, null, {}]" or kind == "revision" else "no config.json")


def wrong_bytes(handler):
    data = b"x" * len(handler.hub.repos["org/tiny"].files["model.safetensors"])
    handler.data(data)


def test_wrong_content_once(hub, pull, tiny):
    hub.faults["cdn"] = once(wrong_bytes)
    check_snapshot(pull(), needed(tiny))


def test_wrong_content_always(hub, cache, pull_fails):
    hub.faults["cdn"] = always(wrong_bytes)
    pull_fails("model.safetensors", "checksum")
    etag = hub.repos["org/tiny"].etag("model.safetensors")
    assert not list(cache.rglob(f"blobs/{etag}*")) and not list(cache.rglob("refs/main"))


def test_wrong_content_of_a_small_file(hub, pull_fails):
    hub.faults["resolve"] = lambda h: h.groups[2] == "config.json" and not h.data(b"{}" + b" " * (
        len(hub.repos["org/tiny"].files["config.json"]) - 2))
    pull_fails("config.json", "checksum")


def test_two_hashes(hub, pull_fails):
    hub.faults["resolve"] = lambda h: h.groups[2].endswith("safetensors") and not h.send(
        302, b"", Location=f"{hub.cdn}/cdn/x", X_Linked_Etag='"' + "0" * 64 + '"')
    pull_fails("two hashes")


def test_shorter_than_said(hub, pull_fails):
    hub.faults["cdn"] = always(lambda h: h.data(b"short"))
    pull_fails("model.safetensors", "less than the file has")


def test_longer_than_said(hub, pull_fails):
    hub.faults["cdn"] = always(lambda h: h.data(b"x" * 1_000_000))
    pull_fails("model.safetensors", "more than the file has")


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


@pytest.mark.parametrize("kind", ["revision", "tree", "resolve", "cdn"])
def test_endless_bodies(hub, pull_fails, kind):
    hub.faults[kind] = always(endless)
    pull_fails("endless" if kind in ("revision", "tree") else "more than the file has")


def header_bomb(handler):
    handler.send_response(200)
    for i in range(2000):
        handler.send_header(f"X-{i}", "x" * 1000)
    handler.end_headers()


@pytest.mark.parametrize("kind", ["revision", "resolve"])
def test_header_bombs(hub, pull_fails, kind):
    hub.faults[kind] = always(header_bomb)
    pull_fails("headers are longer")


def test_one_endless_header(hub, pull_fails):
    def answer(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(200):
            handler.wfile.write(b"x" * 65536)
        handler.close_connection = True

    hub.faults["revision"] = always(answer)
    pull_fails("cannot reach")


@pytest.mark.parametrize("kind", ["revision", "tree", "resolve", "cdn"])
def test_redirect_loops(hub, pull_fails, kind):
    hub.faults[kind] = always(lambda h: h.send(302, b"", Location=h.path))
    pull_fails("redirects more than")


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://user:secret@127.0.0.1/x", "http://",
                                      "http://[::1", "gopher://127.0.0.1:1/_x", "javascript:1"])
def test_redirects_elsewhere(hub, pull_fails, location):
    hub.faults["resolve"] = always(lambda h: h.send(302, b"", Location=location))
    pull_fails("an address that can't be used" if "://" in location[:9] else "")


def test_pages_without_end(hub, pull_fails):
    hub.faults["tree"] = always(lambda h: h.send(200, b"[]", Link=f'<{hub.endpoint}{h.path}?x>; rel="next"'))
    pull_fails("without end")


def test_pages_on_another_host(hub, pull_fails):
    hub.faults["tree"] = always(lambda h: h.send(200, b"[]", Link=f'<{hub.cdn}{h.path}>; rel="next"'))
    pull_fails("another host", HF_TOKEN="hf_secret")
    assert not any(r[1].startswith("localhost") for r in hub.requests)


BOMB = gzip.compress(bytes(50_000_000))


def bomb(handler):
    handler.send(200, BOMB, Content_Encoding="gzip")


@pytest.mark.parametrize("kind", ["revision", "tree", "resolve", "cdn"])
def test_gzip_bombs(hub, pull_fails, kind):
    hub.faults[kind] = always(bomb)
    pull_fails("compressed")


def one_byte_at_a_time(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(0.1)
    handler.close_connection = True


@pytest.mark.parametrize("kind", ["revision", "cdn"])
def test_drips(hub, pull, kind):
    hub.faults[kind] = once(one_byte_at_a_time)
    pull(HF_HUB_DOWNLOAD_TIMEOUT="2")


@pytest.mark.parametrize("answer", ["bytes 0-9/10", "bytes 5-20/100", "bytes 16777216-33554431/1", "nonsense", None])
def test_wrong_ranges(hub, sharded, pull, answer):
    """A server that gives other ranges than were asked for is asked for whole files."""
    hub.add("org/tiny", sharded)

    def fault(handler):
        if "Range" not in handler.headers:
            return False
        handler.send(206, b"x" * 10, **({"Content-Range": answer} if answer else {}))
        return True

    hub.faults["cdn"] = fault
    check_snapshot(pull(), needed(sharded))


def test_right_ranges_with_wrong_bytes(hub, sharded, pull):
    hub.add("org/tiny", sharded)

    def fault(handler):
        asked = handler.asked_range(36_000_001)
        if not asked or asked[0] == 0:
            return False
        n = asked[1] - asked[0] + 1
        handler.send(206, b"x" * n, **{"Content-Range": f"bytes {asked[0]}-{asked[1]}/36000001"})
        return True

    hub.faults["cdn"] = fault
    check_snapshot(pull(), needed(sharded))


def test_names_do_not_reach_the_terminal(hub, tiny, cache, tmp_path, mlxbench_run, pull):
    hub.add("org/tiny", {**tiny, "config.json": json.dumps({"model_type": "\x1b]0;owned\x07", "torch_dtype": "\x9b2J"})})
    pull()
    done = mlxbench_run("models")
    assert done.returncode == 0 and not {c for c in done.stdout if ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160}


def test_links_in_the_cache_are_not_written_through(hub, cache, tmp_path, pull_fails, tiny):
    """Somebody put a link where a download would be."""
    blobs = cache / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (tmp_path / "victim").write_text("precious")
    etag = hub.repos["org/tiny"].etag("model.safetensors")
    os.symlink(tmp_path / "victim", blobs / f"{etag}.mlxbench.incomplete")
    pull_fails("cannot write")
    assert (tmp_path / "victim").read_text() == "precious"


def test_cache_that_can_not_be_written(hub, tmp_path, pull_fails):
    (tmp_path / "file").write_text("")
    pull_fails("cannot make the folder", HF_HUB_CACHE=str(tmp_path / "file" / "hub"))
