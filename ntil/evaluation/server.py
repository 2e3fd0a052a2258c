"""An OpenAI-compatible server in place of the model in this process: vLLM, SGLang, or any other.

A row without a picture is sent as the ids of its prompt to `/completions`, so the server's chat template plays no part.
A row with one goes to `/chat/completions`, the picture as a PNG in a data URI before the question; what the server does
with them is its own. Servers differ from this process in kernels and in how they batch, so answers are believed only
after a comparison with this process's own, see `ntil.evaluation.parity`.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image

from data.common.rows import Row
from ntil.collator import Collator
from ntil.config.answering import GenerationConfig, ServerConfig
from ntil.config.errors import ConfigError
from ntil.evaluation.stops import cut

SHOWN = 300  # characters of a server's error that are shown
LARGEST = 1 << 24  # bytes of an answer that are read


@dataclass(frozen=True)
class Server:
    """Client of the server; it answers rows as `ntil.evaluation.generate.generate` does."""

    config: ServerConfig
    collator: Collator
    generation: GenerationConfig

    def answers(self, rows: Sequence[Row], sample: int | None = None) -> list[str]:
        """Answers of rows, in order; greedy, or their samples number `sample`.

        Raises:
            ConfigError: the server can't be reached, refuses a request, or answers by another protocol.
        """
        with ThreadPoolExecutor(self.config.parallel) as pool:
            return list(pool.map(partial(self._answer, sample=sample), rows))

    def _answer(self, row: Row, sample: int | None) -> str:
        picture = self.collator.task.picture(row)
        body = self._settings(sample)
        if picture is None:
            body["prompt"] = self.collator.encode(row, None).prompt_ids
        else:
            body["messages"] = [{"role": "user", "content": self._content(row, picture)}]
        answer = self._post("completions" if picture is None else "chat/completions", body)
        try:
            choice = answer["choices"][0]
            text = choice["text"] if picture is None else choice["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            raise ConfigError(
                f"evaluation.server.url={self.config.url}: row {row['id']}: the answer has no text where OpenAI's "
                f"protocol has it ({json.dumps(answer)[:SHOWN]})"
            ) from error
        end = self.collator.family.tokenizer.convert_ids_to_tokens(self.collator.family.end_id)
        return cut(str(text or ""), [str(end), *(self.generation.stop or ())])

    def _content(self, row: Row, picture: Image.Image) -> list[dict[str, Any]]:
        image = {"type": "image_url", "image_url": {"url": data_uri(picture)}}
        return [image, {"type": "text", "text": self.collator.task.prompt(row)}]

    def _settings(self, sample: int | None) -> dict[str, Any]:
        g = self.generation
        # vLLM and SGLang drop special tokens by default, and some formats write boxes with them.
        body: dict[str, Any] = {
            "model": self.config.model,
            "max_tokens": self.collator.task.max_new_tokens,
            "temperature": 0.0,
            "skip_special_tokens": False,
            "stop_token_ids": [self.collator.family.end_id],
        }
        if g.stop:
            body["stop"] = g.stop
        if sample is not None:
            body["temperature"] = g.temperature
            body["seed"] = (g.seed or 0) + sample
            body |= {name: value for name in ("top_p", "top_k") if (value := getattr(g, name)) is not None}
        return body

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        url = f"{(self.config.url or '').rstrip('/')}/{path}"
        headers = {"Content-Type": "application/json"}
        if self.config.key_variable:
            headers["Authorization"] = f"Bearer {_key(self.config.key_variable)}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
        try:
            # The scheme is http or https (ntil.config.answering.check_backend).
            with urllib.request.urlopen(request, timeout=self.config.timeout) as response:
                return json.loads(response.read(LARGEST))
        except urllib.error.HTTPError as error:
            detail = error.read(SHOWN).decode(errors="replace")
            raise ConfigError(f"{url} answers {error.code} {error.reason}: {detail}") from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise ConfigError(f"{url}: {reason}; start the server, or set evaluation.server.url") from error
        except ValueError as error:
            raise ConfigError(f"{url}: answers no JSON; is it an OpenAI-compatible server?") from error


def _key(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise ConfigError(f"evaluation.server.key_variable={variable}: no such variable in the environment")
    return value


def data_uri(picture: Image.Image) -> str:
    """The picture as a PNG in a data URI, so that every pixel is the one that this process's model sees."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
