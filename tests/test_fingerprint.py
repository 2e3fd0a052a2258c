"""The fingerprint of a split changes with its data and with nothing else."""

import io

from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage

from ntil.fingerprint import fingerprint


def rows(count=10, colour=0, text="a"):
    def picture(shade):
        buffer = io.BytesIO()
        PILImage.new("L", (2, 2), shade).save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    table = {"id": [str(i) for i in range(count)], "image": [picture(colour + i) for i in range(count)]}
    table["answer"] = [text] * count
    return Dataset.from_dict(table, Features({"id": Value("string"), "image": Image(), "answer": Value("string")}))


def test_it_is_a_function_of_the_data():
    assert fingerprint(rows()) == fingerprint(rows())
    others = [rows(11), rows(colour=1), rows(text="b"), rows().rename_column("answer", "reply")]
    assert len({fingerprint(rows()), *map(fingerprint, others)}) == 5
