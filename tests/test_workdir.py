"""The guard of workdirs that explain.py and train.py share."""

import os
import signal
import stat
import subprocess
import sys

import pytest

from diffcf_jax.errors import UserError
from diffcf_jax.workdir import differences, locked, read_config, write_config

_HOLD = """
import sys, time
from pathlib import Path
from diffcf_jax.workdir import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time_and_a_killed_one_leaves_no_lock(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", _HOLD, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="Another run works in .*out: wait for its end, or"):
            locked(out).__enter__()
        process.send_signal(signal.SIGKILL)
    for _ in range(2):
        with locked(out), pytest.raises(UserError, match="Another run works"):
            locked(out).__enter__()
    assert not stat.S_IMODE((out / ".lock").stat().st_mode) & 0o111


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(victim)
    with pytest.raises(UserError, match="leads out of"):
        locked(tmp_path / "out").__enter__()
    assert victim.read_text() == "precious"


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path):
        pass


def test_configs_are_compared_by_their_keys(tmp_path):
    before = {"a": {"b": 1, "c": [1, 2]}, "data": {"limit": 3, "name": "x"}, "e": {}}
    assert read_config(tmp_path) is None
    write_config(tmp_path, before)
    before = read_config(tmp_path)
    assert differences(before, {**before, "a": {"b": 1, "c": (1, 2)}}, ()) == ""
    now = {"a": {"b": 2}, "data": {"limit": 4, "name": "y"}}
    assert differences(before, now, ["data.limit"]) == (
        "a.b (1 there, 2 here); a.c ([1, 2] there, None here); data.name (x there, y here)"
    )
    assert differences(before, now, ["data", "a"]) == ""
    assert len(differences({"a": "x" * 10**6}, {"a": 1}, ())) < 200


@pytest.mark.parametrize("text", ["[]", "{", "3", "[" * 100_000, '{"a": NaN}', "\xff"])
def test_a_config_that_is_none(tmp_path, text):
    (tmp_path / "config.json").write_text(text, "latin-1")
    with pytest.raises(UserError, match=r"config\.json.*; give another --workdir"):
        read_config(tmp_path)


def test_a_config_that_is_a_pipe_or_a_dangling_link(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(UserError, match="it is not a regular file"):
        read_config(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="No such file"):
        read_config(tmp_path)
