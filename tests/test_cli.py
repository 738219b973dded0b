import platform
import subprocess
import sys

import jax
import pytest

from diffcf_jax import cli
from diffcf_jax.errors import UserError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("a list:\n  one\n  two"), "error: a list:\n  one\n  two\n"),
        (ValueError("wrapped\n  where it likes"), "error: wrapped where it likes\n"),
    ],
)
def test_errors_are_told_and_end_with_status_2(capsys, error, message):
    with pytest.raises(SystemExit) as ended:
        cli._fail(error)
    assert ended.value.code == 2 and capsys.readouterr().err == message


def test_a_file_that_fails_is_told(tmp_path):
    code = "from diffcf_jax import cli; cli.run(lambda argv: open('gone/metrics.jsonl', 'w'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "No such file or directory: 'gone/metrics.jsonl'" in line
    assert line.endswith("run the same command again.")


def test_compiled_programs_are_kept(monkeypatch, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    (tmp_path / "file").write_text("")
    try:
        for home, told, kept in (
            (tmp_path, None, str(tmp_path / "diffcf_jax" / "xla")),
            (tmp_path / "file", None, None),  # cannot be written
            (tmp_path, "elsewhere", "elsewhere"),
        ):
            monkeypatch.setenv("XDG_CACHE_HOME", str(home))
            jax.config.update("jax_compilation_cache_dir", told)
            cli._keep_compiled_programs()
            assert jax.config.jax_compilation_cache_dir == kept
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert (tmp_path / "diffcf_jax" / "xla").is_dir()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked for it")
def test_freed_memory_is_used_again():
    program = """
import resource, threading
from diffcf_jax import cli
cli.keep_memory()
faults = []
def allocate():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        b"x" * (1 << 28)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=allocate)
thread.start()
thread.join()
print(*faults)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    first, *later = map(int, ran.stdout.split())
    assert max(later) < first / 100
