"""The OpenAI back-end against a stand-in: a server on the loopback that answers with this project's own model.

It shows the protocol and the parity check. No vLLM or SGLang runs here; what they answer is not tested.
"""

import http.client
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from datasets import Image as Picture

from ntil.collator import Collator
from ntil.commands.evaluate import overridden
from ntil.components import Components
from ntil.config.answering import GenerationConfig, ServerConfig
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash
from ntil.evaluation.by_server import compare, predict_by_server
from ntil.evaluation.generate import predict
from ntil.evaluation.parity import Parity
from ntil.evaluation.server import Server
from ntil.preflight import compose_checked
from tests.support.openai_server import StandIn, serving
from tests.support.tiny_checkpoints import Ask, ask


@pytest.fixture
def serve(monkeypatch):
    with serving(monkeypatch) as start:
        yield start


def parts(words, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NTIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        components = Components.build(compose(["loss=ntil", *words]))
        torch.manual_seed(0)
        return components, components.family.load().eval()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    components, model = parts(["model=qwen25_nano", "task=arithmetic"], tmp_path_factory)
    rows = [{"id": i, "prompt": f"{i} + {i * i} =", "answer": str(i + i * i)} for i in range(10)]
    return model, Collator(components.family, Ask(), components.vocab, "decimal"), Dataset.from_list(rows)


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    components, model = parts(["model=llava_nano", "task=clock"], tmp_path_factory)
    rows = Dataset.from_list(ask(["7"] * 6)).cast_column("image", Picture())
    return model, Collator(components.family, Ask(), components.vocab, "decimal"), rows


def server_of(url: str, collator, generation=None, **changes) -> Server:
    return Server(ServerConfig(url=url, model="ours", **changes), collator, generation or GenerationConfig())


@pytest.mark.parametrize("kind", ["text", "pictured"])
def test_a_server_that_answers_alike_gives_the_same_records(kind, serve, request):
    model, collator, rows = request.getfixturevalue(kind)
    stand_in = StandIn(model, collator)
    server = server_of(serve(stand_in), collator, parity_rows=4, parallel=2)
    parity = compare(model, collator, server, rows, 3)
    assert (parity.rows, parity.equal, parity.first) == (4, 4, None)
    parity.check(server.config)
    evaluation = compose([]).evaluation
    records = [record for _, record in predict_by_server(server, evaluation, rows)]
    assert records == list(predict(model, collator, rows, 4))
    assert {body["temperature"] for body in stand_in.bodies} == {0.0}
    assert ("prompt" in stand_in.bodies[0]) == (kind == "text")


def test_samples_and_their_consensus_come_from_the_server(pictured, serve):
    model, collator, rows = pictured
    stand_in = StandIn(model, collator)
    words = ["evaluation.generation={samples:3,temperature:0.8,top_k:5,seed:7}", "evaluation.decoding=consensus"]
    evaluation = compose(words).evaluation
    server = server_of(serve(stand_in), collator, evaluation.generation)
    record = next(iter(predict_by_server(server, evaluation, rows.select([0]))))[1]
    assert len(record["sampled"]) == 3
    assert record["decodings"]["consensus"]["text"] in {one["text"] for one in record["sampled"]}
    drawn = [body for body in stand_in.bodies if body["temperature"]]
    assert [body["seed"] for body in drawn] == [7, 8, 9]
    assert {(body["temperature"], body["top_k"]) for body in drawn} == {(0.8, 5)}


def test_answers_that_differ_are_counted_and_refused_below_the_threshold(text, serve):
    model, collator, rows = text
    stand_in = StandIn(model, collator)
    changed = iter([True, False, False, False] * 5)
    stand_in.change = lambda answer: f"{answer} 9" if next(changed) else answer
    server = server_of(serve(stand_in), collator, parity_rows=8, parallel=1)
    parity = compare(model, collator, server, rows, 8)
    assert (parity.rows, parity.equal) == (8, 6)
    assert str(parity).startswith("parity: 6 of 8 answers equal, 2 unequal; the first, row 0: ")
    assert parity.metrics == {"parity_rows": 8.0, "parity_equal": 6.0}
    with pytest.raises(ConfigError, match=r"6 of 8 answers equal.*accept_parity=true"):
        parity.check(server.config)
    parity.check(replace(server.config, parity_least=0.75))
    parity.check(replace(server.config, accept_parity=True))


def test_stop_texts_and_ends_are_cut_whatever_the_server_leaves(text, serve):
    model, collator, rows = text
    stand_in = StandIn(model, collator)
    end = collator.family.tokenizer.convert_ids_to_tokens(collator.family.end_id)
    stand_in.change = lambda answer: f"12;34{end}56"
    url = serve(stand_in)
    assert server_of(url, collator).answers([rows[0]]) == ["12;34"]
    assert server_of(url, collator, GenerationConfig(stop=[";"])).answers([rows[0]]) == ["12"]
    assert stand_in.bodies[-1]["stop"] == [";"]


def test_the_key_comes_from_the_environment(text, serve, monkeypatch):
    model, collator, rows = text
    stand_in = StandIn(model, collator)
    server = server_of(serve(stand_in), collator, key_variable="SERVER_KEY")
    monkeypatch.delenv("SERVER_KEY", raising=False)
    with pytest.raises(ConfigError, match="key_variable=SERVER_KEY: no such variable"):
        server.answers([rows[0]])
    monkeypatch.setenv("SERVER_KEY", "abc")
    server.answers([rows[0]])
    assert stand_in.headers[-1]["Authorization"] == "Bearer abc"


def test_what_goes_wrong_is_one_sentence(text, serve, monkeypatch):
    model, collator, rows = text
    stand_in = StandIn(model, collator)
    url = serve(stand_in)
    stand_in.status = 404
    with pytest.raises(ConfigError, match=r"completions answers 404 .*no such model"):
        server_of(url, collator).answers([rows[0]])
    with pytest.raises(ConfigError, match=r"set evaluation\.server\.url"):
        server_of("http://127.0.0.1:1/v1", collator).answers([rows[0]])
    stand_in.status = 200
    monkeypatch.setattr(stand_in, "answer", lambda path, body: {"output": "7"})
    with pytest.raises(ConfigError, match="row 0: the answer has no text"):
        server_of(url, collator).answers([rows[0]])

    def dies(*_, **__):
        raise http.client.IncompleteRead(b"", 10)

    monkeypatch.setattr("urllib.request.urlopen", dies)
    with pytest.raises(ConfigError, match=r"IncompleteRead.*start the server"):
        server_of(url, collator).answers([rows[0]])


SERVED = [
    "evaluation.backend=openai",
    "evaluation.server.url=http://localhost:8000/v1",
    "evaluation.server.model=ours",
]


def test_a_training_is_not_evaluated_by_a_server():
    with pytest.raises(ConfigError, match=r"is for finished runs: export one, serve it"):
        compose_checked([*SERVED, "model=llava_nano", "task=clock"], on_this_machine=False)
    config = overridden(compose([]), SERVED)
    assert config.evaluation.backend == "openai"
    elsewhere = overridden(compose([]), [*SERVED[:1], "evaluation.server.url=http://b/v1", SERVED[2]])
    assert config_hash(config) == config_hash(elsewhere) != config_hash(compose([]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluation.decoding=median"], "needs the model's probabilities"),
        (["evaluation.generation.beams=2"], "has no beam search"),
        (["evaluation.server.url=file:///etc/passwd"], "must be of http or https"),
        (["evaluation.server.parity_rows=0"], "at least 1"),
    ],
)
def test_what_a_server_can_not_do_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        overridden(compose([]), [*SERVED, *words])


def test_blanks_at_the_ends_are_no_difference():
    assert Parity.of(["a", "b"], [" 7", "8"], ["7\n", "9"]).equal == 1
