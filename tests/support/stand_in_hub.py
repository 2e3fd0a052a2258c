"""A server on the loopback that answers as the Hugging Face hub does for one data set of a few files."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

REPO = "owner/name"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def stand_in_hub(folder: Path, asked: list[str]) -> Iterator[str]:
    """Serve the files of a folder as the data set `REPO`; the address. `asked` gets what is asked for."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer()

        def do_HEAD(self):
            self.answer()

        def do_POST(self):
            length = int(self.headers.get("Content-Length") or 0)
            self.answer(self.rfile.read(length).decode())

        def answer(self, sent: str = ""):
            path = unquote(urlsplit(self.path).path)
            asked.append(f"{self.command} {path}")
            if path.startswith(f"/datasets/{REPO}/resolve/"):
                name = path.split("/", 6)[6]
                self.send_file(name)
            elif re.fullmatch(rf"/api/datasets/{REPO}(/revision/[\w.]+)?", path):
                siblings = [{"rfilename": name} for name in names()]
                self.send_json({"id": REPO, "sha": COMMIT, "siblings": siblings, "private": False, "gated": False})
            elif path.startswith(f"/api/datasets/{REPO}/tree/"):
                self.send_json([entry(name) for name in names()])
            elif path.startswith(f"/api/datasets/{REPO}/paths-info/"):
                wanted = (
                    json.loads(sent)["paths"] if sent.startswith("{") else re.findall(r"paths=([^&]+)", unquote(sent))
                )
                self.send_json([entry(name) for name in names() if name in wanted])
            else:
                self.send_error_code("RepoNotFound")

        def send_file(self, name: str):
            if name not in names():
                return self.send_error_code("EntryNotFound")
            content = (folder / name).read_bytes()
            first, last = 0, len(content) - 1
            if given := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                first, last = int(given[1]), min(last, int(given[2] or last))
            self.send_response(206 if given else 200)
            self.send_header("ETag", f'"{entry(name)["oid"]}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            if given:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.send_header("Content-Length", str(last + 1 - first))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[first : last + 1])

        def send_json(self, value):
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def send_error_code(self, code: str):
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    def names() -> list[str]:
        return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())

    def entry(name: str) -> dict[str, object]:
        content = (folder / name).read_bytes()
        oid = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        return {"type": "file", "path": name, "size": len(content), "oid": oid}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
