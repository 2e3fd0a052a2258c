"""Ground truth joined with its pictures: real ones, broken ones, and the split that releases lack."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from data.common.column_form import ContradictedColumn
from data.common.errors import InvalidData, OnError
from data.text_detection.ground_truth import Format
from data.text_detection.release import TextRelease
from ntil.commands.data import check, contact_sheet
from tasks.base import ParseFailure
from tasks.text_detection import TextDetection

LINE = "10,10,40,10,40,20,10,20,word\n"


def release(folder: Path, count: int, form: Format = "icdar2015", on_error: OnError = "raise", **more) -> TextDetection:
    for kind in ("gt", "img"):
        (folder / kind).mkdir(exist_ok=True)
    for number in range(1, count + 1):
        (folder / "gt" / f"gt_img_{number}.txt").write_text(LINE)
        Image.new("RGB", (64, 48)).save(folder / "img" / f"img_{number}.png")
    paths = {"truth": {"train": str(folder / "gt")}, "images": {"train": str(folder / "img")}}
    return TextDetection(TextRelease(form, **{**paths, **more}, on_error=on_error))


def test_real_photographs_of_every_release(shared, tmp_path):
    base = shared / "assets" / "data" / "scene_text"
    total = tmp_path / "gt"
    total.mkdir()
    shutil.copy(base / "totaltext_eval" / "Examples" / "Groundtruth" / "poly_gt_img3.mat", total)
    sources: dict[Format, tuple[Path, Path, int, int]] = {
        "mmocr": (base / "icdar2015_train10" / "textdet_test.json", base / "icdar2015_train10", 10, 82),
        "totaltext": (total, base / "totaltext_eval" / "T3_Example" / "img", 1, 4),
    }
    for form, (truth, images, pictures, texts) in sources.items():
        task = TextDetection(TextRelease(form, truth={"test": str(truth)}, images={"test": str(images)}))
        (report,) = check(task, task.splits)
        assert report.good, report.lines()
        rows = task.rows("test")
        assert (len(rows), sum(len(p) for p in rows["polygons"])) == (pictures, texts)
        assert rows[0]["image"].size == (rows[0]["width"], rows[0]["height"])
        sheet = contact_sheet(task, "test", pictures, tmp_path / f"{form}.png")
        assert Image.open(sheet).width > 192
        for one in rows:
            assert task.draw(one, ParseFailure("nothing")).size == task.draw(one, []).size


def test_the_validation_split_is_held_out_of_training(tmp_path):
    task = release(tmp_path, 25)
    train, validation = task.rows("train"), task.rows("validation")
    assert (len(train), len(validation)) == (23, 2)
    assert set(train["id"]).isdisjoint(validation["id"])
    assert validation["id"] == task.rows("validation")["id"] == ["10", "20"]
    own = release(tmp_path, 25, truth={s: str(tmp_path / "gt") for s in ("train", "validation")})
    assert isinstance(own.source, TextRelease)
    own.source.images["validation"] = own.source.images["train"]
    assert len(own.rows("train")) == 25
    few = tmp_path / "few"
    few.mkdir()
    with pytest.raises(InvalidData, match="none to hold out"):
        release(few, 3).rows("validation")
    with pytest.raises(ValueError, match=r"task\.source\.truth\.test"):
        task.rows("test")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "img" / "img_2.png").unlink(), "gt_img_2.txt, field image: .* has no picture 2"),
        (lambda f: (f / "gt" / "gt_img_2.txt").unlink(), "img_2.png: has no ground truth"),
        (lambda f: (f / "gt" / "gt_img_2.txt").write_text("5,5,9,9,5,5,9,9,x"), "field polygon 0: .* has no area"),
        (lambda f: (f / "gt" / "gt_img_2.txt").write_text("500,5,590,5,590,9,500,9,x"), "outside the 64 x 48 picture"),
        (lambda f: (f / "img" / "img_2.png").write_bytes(b"\x89PNG"), "img_2.png is (no picture|broken)"),
        (lambda f: Image.new("L", (9, 9)).save(f / "img" / "img_2.jpg"), "both belong to picture 2"),
        (lambda f: (f / "gt" / "gt_img_2.txt").write_text("1,2,3,4,word"), "gt_img_2.txt, line 1: .*8 coordinates"),
    ],
)
def test_a_broken_row_is_named_or_skipped_and_listed(tmp_path, harm, message):
    task = release(tmp_path, 20)
    harm(tmp_path)
    with pytest.raises(InvalidData, match=message):
        task.rows("train")
    skipping = release_again(task)
    assert "2" not in skipping.rows("train")["id"]
    assert len(skipping.skipped) == 1


def release_again(task: TextDetection) -> TextDetection:
    source = task.source
    assert isinstance(source, TextRelease)
    return TextDetection(TextRelease(source.format, source.truth, source.images, on_error="skip"))


@pytest.mark.parametrize(
    ("form", "name", "content"),
    [
        ("totaltext", "gt_img_2.txt", "x: [[1 9]], y: [[1 9]], ornt: [u'h'], transcriptions: [u'word']\n"),
        ("totaltext", "gt_img_2.txt", "1,1,9,9,word\n"),
        ("ctw1500", "gt_img_2.txt", "1,1,9,9,word\n"),
        ("ctw1500", "gt_img_2.xml", "<a><box><label>word</label><segs>1,1,9,9</segs></box></a>"),
        ("icdar2013", "gt_img_2.txt", "word\n"),
    ],
)
def test_an_outline_of_two_points_costs_its_picture_not_the_split(tmp_path, form, name, content):
    task = release(tmp_path, 20, form)
    (tmp_path / "gt" / "gt_img_2.txt").unlink()
    for number in range(1, 21):
        if form == "icdar2013" and number != 2:
            (tmp_path / "gt" / f"gt_img_{number}.txt").write_text("10,10,40,20,word\n")
    (tmp_path / "gt" / name).write_text(content)
    with pytest.raises(InvalidData, match="gt_img_2"):
        task.rows("train")
    skipping = release_again(task)
    assert "2" not in skipping.rows("train")["id"]
    assert len(skipping.skipped) == 1


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    ("line", "form"),
    [
        ("0.1,0.1,0.7,0.1,0.7,0.5,0.1,0.5,word\n", "x, y as parts of 1"),
        ("2,{0},2,{1},12,{1},12,{0},word\n", "y, x in pixels"),
    ],
)
def test_outlines_of_another_form_are_refused(tmp_path, on_error, line, form):
    task = release(tmp_path, 20, on_error=on_error)
    for number in range(1, 21):
        (tmp_path / "gt" / f"gt_img_{number}.txt").write_text(line.format(number + 20, number + 38))
    with pytest.raises(ContradictedColumn, match=f"gt, field outlines: read as x, y in pixels.* 20 can be {form}"):
        task.rows("train")


def test_what_costs_no_picture_is_noted(tmp_path):
    task = release(tmp_path, 20)
    for number, content in ((2, LINE + LINE), (3, "10,10,40,10,40,20,10,20,\n"), (4, LINE[:-5] + "caf\xe9\n")):
        (tmp_path / "gt" / f"gt_img_{number}.txt").write_bytes(content.encode("latin-1"))
    rows = task.rows("train")
    assert [len(row["polygons"]) for row in rows][:4] == [1, 2, 1, 1]
    first = [note.partition(": ")[2].partition("; the first in ") for note in task.notes]
    assert [(what, Path(where).name) for what, _, where in first] == [
        ("1 pictures have an outline twice, of which at most one can be matched", "gt_img_2.txt"),
        ("1 outlines have no transcription, though others have", "gt_img_3.txt"),
        ("1 transcriptions aren't UTF-8, and are read with question marks", "gt_img_4.txt"),
    ]


def test_don_t_care_regions_may_be_anything(tmp_path):
    task = release(tmp_path, 10)
    (tmp_path / "gt" / "gt_img_1.txt").write_text("5,5,9,9,5,5,9,9,###\n900,5,990,5,990,9,900,9,###\n" + LINE)
    rows = task.rows("train")
    assert rows[0]["ignore"] == [True, True, False]
    assert task.record(task.answer(rows[0]), rows[0])["scores"]["acc_0.5"] == 1


def test_missing_places_are_named(tmp_path):
    task = release(tmp_path, 10)
    with pytest.raises(InvalidData, match="no such file or folder"):
        release(tmp_path, 10, truth={"train": str(tmp_path / "nothing")}).rows("train")
    shutil.rmtree(tmp_path / "img")
    with pytest.raises(InvalidData, match=r"task\.source\.images\.train"):
        task.rows("train")
