"""Pictures by web address: fetched from a server on the loopback, and only where they are asked for."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from data.common import web_pictures
from data.common.errors import InvalidData
from data.grounding.table import ExpressionTable
from data.jsonl import Jsonl
from tests.support.hub_folders import png


class Server(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012  one server at a time

    def do_GET(self):
        self.asked.append(self.path)
        if self.path == "/moved.png":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/a.png")
            self.end_headers()
            return
        content = {"/a.png": png(), "/page.html": b"<html>", "/large.png": bytes(5000)}.get(self.path)
        self.send_response(200 if content else 404)
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def address(monkeypatch, tmp_path):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Server.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def table(folder, *images):
    lines = (json.dumps({"image": image, "prompt": f"{n}?", "answer": n}) for n, image in enumerate(images))
    (folder / "t.jsonl").write_text("\n".join(lines))
    return str(folder / "t.jsonl")


def test_addresses_are_refused_unless_asked_for(address, tmp_path):
    with pytest.raises(InvalidData, match=r"line 1, field image: .* is a web address; .*task\.source\.allow_urls=true"):
        Jsonl("numeric", test=table(tmp_path, f"{address}/a.png")).rows("test")
    assert not Server.asked


def test_pictures_are_fetched(address, tmp_path):
    rows = Jsonl("numeric", test=table(tmp_path, f"{address}/a.png"), allow_urls=True).rows("test")
    assert rows[0]["image"].size == (40, 30)
    rows = {"sent": "the dog", "bbox": [1, 2, 9, 9], "image": f"{address}/a.png"}
    (tmp_path / "e.jsonl").write_text(json.dumps(rows))
    other = ExpressionTable({"test": str(tmp_path / "e.jsonl")}, allow_urls=True)
    assert other.rows("test")[0]["image"].size == (40, 30)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/none.png", "can't be fetched .*404"),
        ("/page.html", "the stored picture is broken .*no known format"),
        ("/large.png", "can't be fetched .*more than"),
        ("/moved.png", "can't be fetched .*redirected to 'ftp"),
    ],
)
def test_a_failure_is_one_sentence_of_row_and_field(address, tmp_path, monkeypatch, path, problem):
    monkeypatch.setattr(web_pictures, "MOST_BYTES", 4096)
    file = table(tmp_path, f"{address}/a.png", f"{address}{path}")
    with pytest.raises(InvalidData, match=rf"t\.jsonl, line 2, field image: .*{problem}") as error:
        Jsonl("numeric", test=file, allow_urls=True).rows("test")
    assert "\n" not in str(error.value)
    source = Jsonl("numeric", test=file, allow_urls=True, on_error="skip")
    assert len(source.rows("test")) == 1


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(web_pictures, "TIMEOUT", 2.0)
    with pytest.raises(InvalidData, match=r"line 1, field image: .*can.t be fetched"):
        Jsonl("numeric", test=table(tmp_path, "http://127.0.0.1:9/a.png"), allow_urls=True).rows("test")
