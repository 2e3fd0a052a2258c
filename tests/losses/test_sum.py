"""`loss=sum`: cross-entropy once, every part's terms as in the part alone, by names of configs."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ntil import CE, EMD, NTIL, NumberVocab, Sum, ValueEMD
from ntil.config.build import build, locate
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash
from ntil.config.loss_parts import with_parts
from ntil.config.schema import Component, RunConfig, to_plain_dict
from ntil.launch.plan import plan
from ntil.losses.baselines import EMO, SoftLabel
from ntil.preflight import compose_checked
from tests.losses.test_contract import ALL, SPECS, TABLE, VOCAB, batch, value_and_gradient

TEXTS = ["12:45", "[103, 877]", "a", "-7.5"]
BALANCED = ["loss.balance=grad_norm"]


def configured(*words) -> Sum:
    """As `compose(["loss=sum", *words])` has it, without composing all of a run's configuration anew."""
    dotted = OmegaConf.from_dotlist([word.removeprefix("loss.") for word in words])
    config = to_plain_dict(OmegaConf.merge({**EMPTY, "options": {}}, dotted))
    loss = with_parts(config, lambda name: ALL[name].to_dict(), list(ALL))
    return build("loss", Component.from_dict("loss", loss), vocab=VOCAB, embeddings=TABLE)


def alone(name, **changes):
    spec = ALL[name]
    return build("loss", replace(spec, options={**spec.options, **changes}), vocab=VOCAB, embeddings=TABLE)


EMPTY: dict[Any, Any] = {"target": "ntil.losses:Sum", "parts": ["emd", "value_emd_rescaled"], "weights": None}
PAIRS = [("emd", "value_emd"), ("emd", "value_emd_rescaled"), ("ntl_was", "emo"), ("emd_mass", "soft_label", "smmd")]


@pytest.mark.parametrize("names", PAIRS, ids="+".join)
def test_it_is_cross_entropy_and_what_each_part_adds_to_it(names):
    weights = [0.5 + k for k in range(len(names))]
    sum_ = configured(f"loss.parts=[{','.join(names)}]", f"loss.weights={weights}", "loss.ce_weight=1")
    logits, labels = batch(*TEXTS)
    out, gradient = value_and_gradient(sum_, logits, labels)
    ce, expected = value_and_gradient(CE(), logits, labels)
    total = ce.total
    for name, weight in zip(names, weights, strict=True):
        part = alone(name)
        one, pull = value_and_gradient(part, logits, labels)
        added = weight * (pull - part.ce_weight * expected)
        total, gradient = total + weight * (one.total - part.ce_weight * ce.total), gradient - added
        for key in set(one.components) - {"ce"}:
            torch.testing.assert_close(out.components[f"{name}/{key}"], one.components[key])
    torch.testing.assert_close(out.total, total)
    torch.testing.assert_close(gradient, expected)
    assert torch.equal(out.components["ce"], ce.total)


@pytest.mark.parametrize("more", [[], BALANCED], ids=["own factors", "balanced"])
@pytest.mark.parametrize("names", PAIRS[:3], ids="+".join)
def test_one_lam_of_all_parts_is_each_ones(names, more):
    """Their own are 0.3, 1 and others, some with a factor by the step."""
    named = [f"loss.parts=[{','.join(names)}]", "loss.ce_weight=1", *more]
    logits, labels = batch(*TEXTS)
    one, gradient = value_and_gradient(configured(*named, "loss.lam=0.07"), logits, labels)
    each, expected = value_and_gradient(
        configured(*named, *(f"loss.options.{name}.lam=0.07" for name in names)), logits, labels
    )
    torch.testing.assert_close(gradient, expected)
    for key, value in each.components.items():
        torch.testing.assert_close(one.components[key], value)


def test_a_part_of_no_weight_has_no_lam_to_replace():
    with pytest.raises(ValueError, match=r"emd has lam=0\.0, which the sum's lam=0\.3 can't scale"):
        Sum(VOCAB, parts={"emd": EMD(VOCAB, lam=0.0)}, lam=0.3)
    with pytest.raises(ValueError, match="lam must be >= 0, or null"):
        configured("loss.lam=-1.0")


def test_noise_is_that_of_the_part_alone():
    logits, labels = batch(*TEXTS)
    sum_ = configured("loss.parts=[ntil,emd]", "loss.options.ntil.noise=3.0")
    assert sum_.uses_noise
    one, other = (loss(logits, labels).components for loss in (sum_, alone("ntil", noise=3.0)))
    assert one["ntil/relative"] == other["relative"] != alone("ntil", noise=0.0)(logits, labels).components["relative"]


def cuts(loss, logits, labels, sizes):
    """Total and gradient of the micro-batches of a step, with the reference that a trainer sums over them."""
    ends = [slice(a, b) for a, b in itertools.pairwise([0, *itertools.accumulate(sizes)])]
    info = loss.step_info([labels[c] for c in ends])
    parts = [loss.parts(logits[c], labels[c], info=info) for c in ends]
    with torch.no_grad():  # as the trainer's look at a step before its first backward
        reference = sum(loss.reference(p, logits[c], labels[c], info=info) for p, c in zip(parts, ends, strict=True))
    info = replace(info, reference=reference)
    pieces = [value_and_gradient(loss, logits[c], labels[c], info=info) for c in ends]
    return pieces, torch.cat([gradient for _, gradient in pieces])


@pytest.mark.parametrize("more", [[], BALANCED], ids=["own factors", "balanced"])
@pytest.mark.parametrize("names", [*PAIRS[:2], ("emd", "raft_range", "ntl_mse")], ids="+".join)
def test_the_cut_of_a_step_changes_nothing(names, more):
    loss = configured(f"loss.parts=[{','.join(names)}]", "loss.replace_ce=false", *more)
    logits, labels = batch(*TEXTS)
    whole, expected = value_and_gradient(loss, logits, labels)
    for sizes in ([1, 3], [2, 1, 1]):
        pieces, gradient = cuts(loss, logits, labels, sizes)
        torch.testing.assert_close(sum(out.total for out, _ in pieces), whole.total)
        torch.testing.assert_close(gradient, expected)
        for out, _ in pieces:
            for key, value in out.components.items():
                if key.endswith("factor"):
                    torch.testing.assert_close(value, whole.components[key])


@pytest.mark.parametrize("scale", [1, 1000])
def test_balanced_parts_pull_by_their_weight_in_any_unit(scale):
    """0.123 and 123 are the same digits; value_emd alone pulls a thousand times as hard on the second."""
    loss = configured("loss.parts=[emd,value_emd]", "loss.weights=[1,0.5]", *BALANCED)
    logits, labels = batch("0.123" if scale == 1 else "a 123")
    norms = loss.gradient_norms(logits, labels)
    assert norms["emd/digit"].item() == pytest.approx(0.3 * norms["ce"].item(), rel=1e-4)
    assert norms["value_emd/value"].item() == pytest.approx(0.15 * norms["ce"].item(), rel=1e-4)


def test_a_part_without_gradient_is_left_alone():
    """A sample without numbers, and predictions that are right: nothing to balance, nothing that isn't finite."""
    loss = configured("loss.parts=[emd,value_emd]", *BALANCED)
    logits, labels = batch("abc")
    out, gradient = value_and_gradient(loss, logits, labels)
    assert out.components["emd/factor"] == 0
    assert torch.equal(gradient, value_and_gradient(CE(), logits, labels)[1])
    _, labels = batch("123")
    out, gradient = value_and_gradient(
        loss, 200 * torch.nn.functional.one_hot(labels, logits.shape[-1]).float(), labels
    )
    assert torch.isfinite(gradient).all()
    assert out.total < 1e-6


def test_balance_without_the_step_is_an_error():
    loss = configured(*BALANCED)
    logits, labels = batch("12")
    with pytest.raises(ValueError, match=r"loss\.reference"):
        loss.join(loss.parts(logits, labels))


def test_named_in_any_order_it_is_the_same_run():
    words = [["loss.parts=[emd,ntl_was]", "loss.weights=[2,1]"], ["loss.parts=[ntl_was,emd]", "loss.weights={emd:2.0}"]]
    one, other = (compose(["loss=sum", *w, "loss.name=both"]) for w in words)
    assert config_hash(one) == config_hash(other)
    logits, labels = batch(*TEXTS)
    totals = [build("loss", c.loss, vocab=VOCAB)(logits, labels).total for c in (one, other)]
    assert torch.equal(*totals)
    for more in (["loss.weights=[2,2]"], ["loss.options.emd.lam=0.1"], BALANCED, ["loss.parts=[emd,ntl_mse]"]):
        assert config_hash(compose(["loss=sum", *words[0], *more, "loss.name=both"])) != config_hash(one)


def test_a_frozen_run_names_no_config_any_more():
    config = compose(["loss=sum", "loss.parts=[emd,value_emd]", "loss.options.emd.lam=0.1"])
    assert config.loss.name == "emd+value_emd"
    assert config.loss.options["parts"]["emd"]["lam"] == 0.1
    again = RunConfig.from_dict(config.to_dict())
    assert config_hash(again) == config_hash(config)
    assert build("loss", again.loss, vocab=VOCAB).part_of["emd"].lam == 0.1


def test_any_two_losses_on_numbers_or_boxes_can_be_added():
    for name in ALL:
        kind = locate(ALL[name].target, "loss")
        if kind.has_terms and not kind.reads_numbers and kind is not Sum and name != "ntl_was":
            loss = configured(f"loss.parts=[ntl_was,{name}]", "loss.replace_ce=false", "loss.ce_weight=1")
            assert loss.needs_shapes == kind.needs_shapes
            assert loss.uses_embeddings == kind.uses_embeddings


@pytest.mark.parametrize("name", [name for name in SPECS if name != "sum"])
def test_a_loss_for_any_style_gives_the_same_in_all(name):
    silent = {"noise": 0.0} if "noise" in ALL[name].options else {}
    styles = []
    for style in ("decimal", "thousands", "released"):
        loss = alone(name, **silent)
        loss.number_style = style
        styles.append(loss(*batch("3.015", "1,234", "-7.5 and 90")).components)
    same = all(s[key] == styles[0][key] for s in styles[1:] for key in s)
    assert same or not loss.any_style
    assert not same or loss.any_style or name.startswith("ntil_no")


REFUSED = [
    (["loss.parts=[emd,value_em]"], "did you mean 'value_emd'"),
    (["loss.parts=[emd,emd]"], "names emd twice"),
    (["loss.parts=[sum,emd]"], "sum is a sum itself"),
    (["loss.parts=[]"], "at least one part"),
    (["loss.parts=[ce,emd]"], "ce has no terms to add"),
    (["loss.weights=[1]"], "there are 2 parts, emd, value_emd_rescaled"),
    (["loss.weights=[1,-1]"], "weights must be >= 0"),
    (["loss.weights=[0,0]"], "all parts have the weight 0"),
    (["loss.weights={emdd:1}"], "did you mean 'emd'"),
    (["loss.weights=2"], "by the names of the parts"),
    (["loss.options.emdd.lam=1"], "did you mean 'emd'"),
    (["loss.options.emd.lamm=1"], "loss.parts.emd.lamm.*did you mean 'lam'"),
    (["loss.options.emd.vocab=1"], "loss.parts.emd.vocab follows from the model"),
    (["loss.parts=[ntil,value_emd]"], "loss.options.ntil.number_style=decimal"),
    (["loss.parts=[emd,raft]"], "loss.replace_ce="),
    (["loss.parts=[emd,emo]"], "loss.ce_weight="),
    (["loss.smoothing=0.1", "loss.options.emd.mass=gate"], "beside label smoothing"),
    (["loss.balance=gradnorm"], "must be 'grad_norm'"),
    (["loss.options.emd.lam=-1"], "need lam >= 0"),
    (["loss.lam=0.1", "loss.options.emd.lam=0.5"], r"loss.options.emd.lam does nothing beside loss.lam=0.1"),
    ([*BALANCED, "loss.options.emd.rescale=false"], r"emd.rescale does nothing beside loss.balance=grad_norm"),
    (
        ["loss.parts=[emd,emo]", "loss.ce_weight=1", "loss.options.emo.ce_weight=0.3"],
        "ce_weight does nothing",
    ),
    (
        ["loss.parts=[raft]", "loss.replace_ce=true", "loss.options.raft.replace_ce=false"],
        "replace_ce does nothing",
    ),
]


@pytest.mark.parametrize(("words", "sentence"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_what_does_not_fit_is_one_sentence(words, sentence):
    with pytest.raises(ConfigError, match=sentence) as error:
        configured(*words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("words", [["loss.parts=[ntil,value_emd]"], ["loss.parts=[emd]", "loss.options.emd.lam=-1"]])
def test_it_is_refused_before_a_run(words):
    with pytest.raises(ConfigError, match=r"number_style=decimal|lam >= 0"):
        compose_checked(["loss=sum", *words], on_this_machine=False)


def test_a_part_of_another_package_needs_its_leave():
    parts = {"mine": {"target": "os:system"}}
    with pytest.raises(ConfigError, match=r"loss\.parts\.mine\.target.*NTIL_PACKAGES"):
        build("loss", Component("sum", "ntil.losses:Sum", {"parts": parts}), vocab=VOCAB)


def test_in_code():
    parts = {"digit": EMD(VOCAB, rescale=False), "value": ValueEMD(VOCAB, form="log")}
    loss = Sum(VOCAB, parts=parts, weights={"value": 0.1})
    logits, labels = batch(*TEXTS)
    out = loss(logits, labels)
    expected = CE()(logits, labels).total + sum(
        w * (part(logits, labels).total - CE()(logits, labels).total)
        for w, part in zip((1, 0.1), parts.values(), strict=True)
    )
    torch.testing.assert_close(out.total, expected)
    for wrong, sentence in (
        ({"parts": {"a b": EMD(VOCAB)}}, "letters"),
        ({"parts": {"a": loss}}, "a sum itself"),
        ({"parts": {"a": EMD(NumberVocab(range(10)))}}, "other digits"),
        ({"parts": {"a": NTIL(VOCAB), "b": ValueEMD(VOCAB)}}, "reads numbers as"),
        ({"parts": {"a": EMO(VOCAB), "b": SoftLabel(VOCAB)}}, "ce_weight"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Sum(VOCAB, **wrong)


def test_places_and_aux_are_those_of_each_part():
    loss = Sum(VOCAB, parts={"emd": EMD(VOCAB), "ntil": NTIL(VOCAB, noise=0)}, weights={"emd": 0.0})
    logits, labels = batch("123")
    spans = loss._find(labels)
    weights = loss.position_weights(spans)
    assert list(weights) == ["ntil/weight"]
    torch.testing.assert_close(weights["ntil/weight"].flatten()[:3], torch.tensor([1.44, 1.2, 1.0]))
    parts = loss.parts(logits, labels)
    aux = loss.aux_terms(parts)
    assert list(aux) == ["emd/aux", "ntil/aux"]
    torch.testing.assert_close(aux["emd/aux"], EMD(VOCAB)(logits, labels).components["aux"])
    torch.testing.assert_close(aux["ntil/aux"], NTIL(VOCAB, noise=0)(logits, labels).components["aux"])


def test_the_name_that_tables_print_is_a_choice():
    named, stated = compose(["loss=emd+box_iou_mass"]), compose(["loss=sum", "loss.parts=[emd,box_iou_mass]"])
    assert named.loss == stated.loss
    assert config_hash(named) == config_hash(stated)


def test_sums_stand_in_a_sweep_with_their_options(tmp_path):
    words = ["-m", "loss=ntil,emd+value_emd", "loss.lam=0.2", "tracker=none", f"runs={tmp_path}"]
    jobs = plan(words, on_this_machine=False)
    assert [job.run.loss for job in jobs] == ["ntil", "emd+value_emd"]


@pytest.mark.parametrize(
    ("name", "message"), [("emd+value_em", "'value_emd'"), ("emd+emd", "twice"), ("emd+sum", "a sum itself")]
)
def test_a_sum_of_names_that_do_not_fit_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        compose([f"loss={name}"])
