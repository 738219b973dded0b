"""Files that somebody may have edited, torn, linked elsewhere or replaced by a pipe."""

import json
import os

import numpy as np
import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.files import (
    encode_png,
    inside,
    is_whole_png,
    make_folder,
    read_bytes,
    read_image,
    read_text,
    write_file,
)
from diffcf_jax.jsonfile import parse_json, read_json


def test_a_path_stays_inside_its_folder(tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "folder2"
    (folder / "cf").mkdir(parents=True)
    other.mkdir()
    (folder / "link").symlink_to(other)
    (folder / "file").symlink_to(other / "victim")
    (folder / "back").symlink_to(folder / "cf")
    (tmp_path / "alias").symlink_to(folder)
    for base in (folder, tmp_path / "alias"):
        assert inside(base, "cf/a.png") == folder / "cf" / "a.png"
        assert inside(base, "cf/../cf/new/b.png") == folder / "cf" / "new" / "b.png"
        assert inside(base, "back/a.png") == folder / "cf" / "a.png"
        for name in (
            "../folder2/a.png", str(other / "a.png"), "/etc/passwd", "link/a.png", "file", "", ".",
            "a\0b", "\ud800" + "/../../x", "x" * 5000 + "/../../../x", "cf/../..",
        ):  # fmt: skip
            with pytest.raises(UserError, match="leads out of"):
                inside(base, name)


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe.png").symlink_to(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "pipe.png", "/dev/zero", tmp_path):
        for read in (read_bytes, read_text, read_json, read_image):
            with pytest.raises(UserError, match=f"cannot read {path}: .*(regular|directory)"):
                read(path)
        assert not is_whole_png(path)


def test_reading_is_bounded_and_says_what_is_wrong(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"caf\xe9")
    assert read_bytes(path, 4) == b"caf\xe9"
    with pytest.raises(UserError, match=r"a\.txt: it is not UTF-8 at byte 3; mend it"):
        read_text(path, remedy="mend it")
    os.truncate(path, (2 << 20) + 1)
    with pytest.raises(UserError, match=r"a\.txt: it has more than 2 MB"):
        read_bytes(path, 2 << 20)
    for name in ("missing", "a\0b", "x" * 300):
        with pytest.raises(UserError, match="cannot read "):
            read_bytes(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name .* at column 2 of line 1"),
        ("[1]", "it is not a JSON object"),
        ('{"a": ' + 100_000 * "[" + 100_000 * "]" + "}", "nested too deeply"),
        ('{"a": ' + 60 * "[" + 60 * "]" + "}", "nested too deeply"),
        ('{"a": NaN}', "it holds NaN"),
        ('{"a": -Infinity}', "it holds -Infinity"),
        ('{"a": ' + 5000 * "9" + "}", "a number has too many digits"),
        (r'{"a": ["\ud800"]}', "half a surrogate pair or a NUL"),
        (r'{"a\u0000b": 1}', "half a surrogate pair or a NUL"),
    ],
)
def test_json_that_anybody_may_have_edited(tmp_path, text, reason):
    with pytest.raises(ValueError, match=reason) as raised:
        parse_json(text)
    assert type(raised.value) is ValueError and len(str(raised.value)) < 200
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=rf"config\.json is broken \(.*{reason}.*\); go away"):
        read_json(tmp_path / "config.json", "go away")


def test_good_json_reads_as_it_was_written():
    value = {"name": "zoé \U0001f600 \\u0000", "curve": [[0.1, None]] * 200, "n": 10**15}
    assert parse_json(json.dumps(value)) == value


def test_every_damaged_byte_of_a_png_is_noticed(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    whole = encode_png(image)
    path = tmp_path / "a.png"
    path.write_bytes(whole)
    assert is_whole_png(path) and np.array_equal(read_image(path), image)
    damaged = [whole[:i] + bytes([byte ^ 4]) + whole[i + 1 :] for i, byte in enumerate(whole)]
    cut = [whole[:i] for i in range(len(whole))]
    for data in [*damaged, *cut, whole + b"\0", whole[8:]]:
        path.write_bytes(data)
        assert not is_whole_png(path)


def test_a_name_at_the_file_systems_limit_is_written(tmp_path):
    path = tmp_path / ("é" * 125 + "a.png")  # 255 bytes
    write_file(path, b"data")
    assert path.read_bytes() == b"data" and list(tmp_path.iterdir()) == [path]


def test_nothing_is_written_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    write_file(tmp_path / "a", b"data")  # to learn the temporary name
    (tmp_path / "b").symlink_to(victim)
    write_file(tmp_path / "b", b"data")
    assert victim.read_bytes() == b"precious" and (tmp_path / "b").read_bytes() == b"data"
    assert not (tmp_path / "b").is_symlink()


def test_advice_fits_the_cause(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    for folder, message in (
        ("link", "link is a link to .*gone, which does not exist; make that folder"),
        ("link/out", "link is a link to .*gone, which does not exist; make that folder"),
        ("file", "File exists; something else has that name"),
        ("file/out", "Not a directory; something else has that name"),
        ("x" * 300, "File name too long; choose a folder with a shorter path"),
    ):
        for call in (make_folder, lambda path: write_file(path / "a", b"")):
            with pytest.raises(UserError, match=f"cannot write .*{message}") as raised:
                call(tmp_path / folder)
            assert "space" not in str(raised.value)
    with pytest.raises(UserError, match="(Permission denied|Read-only.*|No such .*); c"):
        make_folder(tmp_path.__class__("/proc/folder"))
