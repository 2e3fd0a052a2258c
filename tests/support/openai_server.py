"""A stand-in for vLLM or SGLang: an OpenAI-compatible server on the loopback that answers with this project's model."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from PIL import Image

from ntil.config.answering import GenerationConfig
from ntil.evaluation.generate import generate


class StandIn:
    """Answers as the model does: `/completions` from ids, `/chat/completions` from a picture and a question."""

    def __init__(self, model, collator) -> None:
        self.model, self.collator = model, collator
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.change = lambda text: text
        self.status = 200
        self.lock = threading.Lock()

    def answer(self, path: str, body: dict) -> dict:
        if path == "/v1/completions":
            ids = torch.tensor([body["prompt"]])
            end = self.collator.family.end_id
            output = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0,
                max_new_tokens=body["max_tokens"], eos_token_id=end,
            )  # fmt: skip
            text = self.collator.family.decode(output[0, ids.shape[1] :].tolist())
            return {"choices": [{"text": self.change(text)}]}
        image, question = body["messages"][0]["content"]
        encoded = image["image_url"]["url"].removeprefix("data:image/png;base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
        row = {"id": 0, "image": picture, "prompt": question["text"]}
        generation = GenerationConfig(samples=1, seed=body.get("seed", 0))
        sample = 0 if body["temperature"] else None
        (text,) = generate(self.model, self.collator, [row], body["max_tokens"], generation, sample)
        return {"choices": [{"message": {"content": self.change(text)}}]}


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[StandIn], str]]:
    """What starts a stand-in and gives its address; all end with the context."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    servers = []

    def start(stand_in: StandIn) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stand_in.lock:
                    stand_in.bodies.append(body)
                    stand_in.headers.append(dict(self.headers))
                    answer = stand_in.answer(self.path, body) if stand_in.status == 200 else {"error": "no such model"}
                data = json.dumps(answer).encode()
                self.send_response(stand_in.status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
