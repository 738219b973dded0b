import io
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from absl import flags

from diffcf_jax import cache, cli, parallel, shipped
from diffcf_jax.errors import Preempted, UserError
from diffcf_jax.main import main

ROOT = Path(__file__).resolve().parents[1]


def make(run, **options):
    """A command with a flag of every type, which calls `run`."""

    def define(values):
        cli.define_path(values, "out", "A file.")
        flags.DEFINE_integer("count", 3, "A number.", flag_values=values)
        flags.DEFINE_enum("kind", None, ["a", "b"], "A kind.", flag_values=values)
        flags.DEFINE_bool("fast", False, "A switch.", flag_values=values)

    return cli.Command("prog", "Does a thing.", run, define, **options)


def raising(error):
    def run(args, rest):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("a list:\n  one\n  two"), 2, "error: a list:\n  one\n  two\n"),
        (
            FileNotFoundError(2, "No such file or directory", "gone/metrics.jsonl"),
            2,
            "error: [Errno 2] No such file or directory: 'gone/metrics.jsonl'. What is saved "
            "stays: fix this and run the same command again.\n",
        ),
        (Preempted("Stopped."), 75, "Stopped.\n"),
    ],
)
def test_errors_are_sentences_and_statuses(capsys, error, status, message):
    assert make(raising(error))([]) == status
    assert capsys.readouterr().err == message


def test_flags_and_arguments_come_in_any_order(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []

    def run(args, rest):
        seen.append((args.out, args.count, args.kind, args.fast, rest))
        return 1

    command = make(run, arguments=("SOURCE", "..."), required=("out",))
    assert command(["x", "--out", "~/y", "--count=4", "--fast", "z", "--kind=b"]) == 1
    assert command(["x", "--out=y"]) == 1  # nothing stays from the last call
    assert seen == [(tmp_path / "y", 4, "b", True, ["x", "z"]), (Path("y"), 3, None, False, ["x"])]


def test_a_required_flag_may_stand_alone(capsys):
    seen = []
    command = make(
        lambda args, rest: seen.append((args.out, rest)), required=("out",), operand="out"
    )
    assert [command(argv) for argv in (["x"], ["--out=x"], ["--out", "x"])] == [0, 0, 0]
    assert seen == 3 * [(Path("x"), [])]
    assert command([]) == command(["y", "--out=x"]) == command(["x", "y"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: prog needs OUT: prog --help shows the flags.",
        *2 * ["error: prog has no use for the argument y: leave it out."],
    ]
    assert command.help().startswith("usage: prog OUT [FLAGS]")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "prog needs --out and SOURCE: prog --help shows the flags."),
        (["x", "--out="], "prog needs --out: prog --help shows the flags."),
        (["x", "y", "--out=z"], "prog has no use for the argument y: leave it out."),
        (["--count=many"], "flag --count=many: invalid literal for int() with base 10: 'many'"),
        (["--coutn=3"], "Unknown command line flag 'coutn'. Did you mean: count ?"),
        (["--kind=c"], "flag --kind=c: value should be one of <a|b>"),
    ],
)
def test_wrong_command_lines(capsys, argv, message):
    command = make(raising(AssertionError()), arguments=("SOURCE",), required=("out",))
    assert command(argv) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_help_pages(capsys):
    for argv in ([], ["--help"], ["help"]):
        assert main(argv) == 0
        page = capsys.readouterr().out
        for name in ("explain", "train", "evaluate", "diagnose", "convert", "export", "parity"):
            assert re.search(rf"^  {name} +[A-Z].*\.$", page, re.M)
    for name in ("explain", "train", "evaluate", "diagnose", "convert", "export", "parity"):
        assert main([name, "--help"]) == 0
        page = capsys.readouterr().out
        assert page.startswith(f"usage: diffcf {name} ") and "flags:" in page
        assert "None" not in page and "-json" not in page
    main(["explain", "--config", "squares_acre", "-h"])
    assert "  --config.method.tau=5\n" in capsys.readouterr().out
    assert main(["convert", "--help"]) == 0
    assert "One of ddpm, densenet-regressor, diffae" in capsys.readouterr().out


def test_wrong_commands(capsys):
    assert main(["explian"]) == 2
    assert capsys.readouterr().err == (
        "error: diffcf has no command explian: did you mean explain?\n"
    )
    assert main(["xyz"]) == 2
    assert "no command xyz: use one of explain, train," in capsys.readouterr().err


def test_help_does_not_wait_for_jax():
    code = (
        "import sys; from diffcf_jax.main import main; main(['explain', '--help']); "
        "sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize(
    ("running", "train", "evaluate"),
    [
        ("/usr/bin/diffcf", "diffcf train", "diffcf evaluate"),
        ("-c", "diffcf train", "diffcf evaluate"),
        ("explain.py", "python train.py", "python -m eval.metrics"),
        (f"{ROOT}/eval/metrics/__main__.py", "python train.py", "python -m eval.metrics"),
        ("/lib/pytest/__main__.py", "diffcf train", "diffcf evaluate"),
    ],
)
def test_messages_name_what_the_user_typed(monkeypatch, running, train, evaluate):
    monkeypatch.setattr(sys, "argv", [running])
    assert (shipped.command("train"), shipped.command("evaluate")) == (train, evaluate)
    monkeypatch.setattr(shipped, "in_clone", lambda: False)
    assert shipped.command("train") == "diffcf train"


def test_paths_that_the_terminal_cannot_encode(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    make(lambda args, rest: print(args.out))([f"--out=\u5bb6{os.fsdecode(bytes([255]))}"])
    out.flush()
    assert out.buffer.getvalue() == rb"\u5bb6\udcff" + os.linesep.encode()


def test_everything_runs_in_float32():
    jax.config.update("jax_enable_x64", True)  # as JAX_ENABLE_X64=1 does
    try:
        assert make(lambda args, rest: jax.numpy.arange(3.0).dtype.itemsize)([]) == 4
    finally:
        jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AssertionError(), "JAX finds no such device"),  # JAX_PLATFORMS=cuda
        (
            RuntimeError("Unable to initialize backend 'tpu': no libtpu (set JAX_PLATFORMS='')"),
            "Unable to initialize backend 'tpu': no libtpu",
        ),
    ],
)
def test_devices_that_are_not_there(monkeypatch, capsys, error, reason):
    monkeypatch.setattr(jax, "local_devices", raising_always(error))
    with pytest.raises(UserError, match=re.escape(f"cannot be used here ({reason}): unset it")):
        parallel.initialize()
    assert make(raising(error))([]) == 2  # wherever it is met first
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: JAX_PLATFORMS=") and reason in line


def raising_always(error):
    def function():
        raise error

    return function


def test_other_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="a bug"):
        make(raising(RuntimeError("a bug")))([])


@pytest.mark.parametrize("lines", [1, 10_000])  # written when it ends, and while it runs
def test_nobody_reads_the_output(monkeypatch, capsys, lines):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        command = make(lambda args, rest: [print("a line of a table") for _ in range(lines)] and 0)
        assert command([]) == 141
        stream.flush()  # as Python does at its end
    assert capsys.readouterr().err == ""


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
            cache.keep_compiled_programs()
            assert jax.config.jax_compilation_cache_dir == kept

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", raising_always(RuntimeError("no home directory")))
        jax.config.update("jax_compilation_cache_dir", None)
        cache.keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir is None
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
