"""Names of metrics say what they are of."""

import pytest

from ntil.commands.evaluate import _line
from ntil.runs.metric_names import decoding_and_metric, is_lenient

LENIENT = ["lenient_acc_0.5", "interpolation/lenient_exact", "decoding/mean/lenient_exact", "decoding/mean/a/lenient_x"]
STRICT = ["acc_0.5", "interpolation/exact", "decoding/mean/exact", "lenient_group/exact", "not_lenient_exact"]


@pytest.mark.parametrize("key", LENIENT)
def test_metrics_of_the_lenient_reading_are_known_in_any_group_and_decoding(key):
    assert is_lenient(key)


@pytest.mark.parametrize("key", STRICT)
def test_others_are_none_of_them(key):
    assert not is_lenient(key)


def test_what_an_evaluation_prints_leaves_them_out():
    assert _line(dict.fromkeys(LENIENT, 0.0) | dict.fromkeys(STRICT[:2], 0.5)) == "acc_0.5 0.5, interpolation/exact 0.5"


def test_the_name_of_a_decoding_is_taken_from_a_metric():
    assert decoding_and_metric("decoding/mean/interpolation/exact") == ("mean", "interpolation/exact")
    assert decoding_and_metric("interpolation/exact") == ("", "interpolation/exact")
