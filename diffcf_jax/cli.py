"""What every command line shares: its flags, its help page, and how it starts and fails."""

import ctypes
import dataclasses
import functools
import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from diffcf_jax import shipped
from diffcf_jax.errors import Preempted, UserError

_FAILED = 2
_RUN_AGAIN = 75  # EX_TEMPFAIL
_NOBODY_READS = 141  # 128 + SIGPIPE, as shells have it
_HELP = {"--help", "-help", "-h", "--helpfull", "-?"}

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def end_with_reader(command: Callable[..., int]) -> Callable[..., int]:
    """Has a command end without a word when what reads its output, such as `head`, has ended."""

    @functools.wraps(command)
    def run(*args: Any) -> int:
        try:
            status = command(*args)
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            # Python flushes the output once more when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _NOBODY_READS

    return run


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line, which is a function from its words to an exit status.

    The status is 0 if all went well, 2 after `error: ...` on stderr (wrong flags, unknown config
    keys, every `UserError`, files that fail), 75 for a run that ended before its work was done,
    which the same command continues, and 141 where nothing reads its output any more.

    Attributes:
        program: what starts it, such as "python -m eval.speed"; for the commands of `diffcf`
            a function that returns it, see `shipped.command`.
        about: what it does, for its help page.
        run: called with the flags and the arguments; may return an exit status.
        define: defines its flags.
        arguments: names of the arguments without a flag; "..." after the last of them takes more.
        config: what the config is for; None: there is no flag --config.
        required: names of the flags that must have a value.
        operand: one of them, whose value may also stand alone, as OUT.
    """

    program: str | Callable[[], str]
    about: str
    run: Callable[[flags.FlagValues, list[str]], int | None]
    define: Callable[[flags.FlagValues], None]
    arguments: tuple[str, ...] = ()
    config: str | None = None
    required: tuple[str, ...] = ()
    operand: str | None = None

    @end_with_reader
    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Runs the command; `argv` are its words, by default those of this process."""
        argv = list(sys.argv[1:] if argv is None else argv)
        _start_output()
        try:
            if _HELP & set(argv):
                print(self.help([word for word in argv if word not in _HELP]))
                return 0
            values, arguments = self.parse(argv)
            _set_up_jax()
            try:
                return self.run(values, arguments) or 0
            except (AssertionError, RuntimeError):
                from diffcf_jax import parallel

                parallel.find_devices()  # says it in a sentence where that is the reason
                raise
        except UserError as error:
            return _fail(error)
        except BrokenPipeError:
            raise
        except OSError as error:  # a full disk, a folder that vanished
            return _fail(f"{error}. What is saved stays: fix this and run the same command again.")
        except Preempted as error:
            print(error, file=sys.stderr)
            return _RUN_AGAIN

    def parse(self, argv: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
        """Returns the flags and the arguments of a command line.

        Raises:
            UserError: a flag or an argument is wrong or missing.
        """
        values, rest = self._parse(argv)
        program = self._program()
        if self.operand and rest and values[self.operand].value is None:
            values[self.operand].parse(rest.pop(0))
        missing = [
            "OUT" if name == self.operand else f"--{name}"
            for name in self.required
            if values[name].value in (None, "")
        ]
        missing += [name for name in self.arguments[len(rest) :] if name != "..."]
        if missing:
            raise UserError(
                f"{program} needs {' and '.join(missing)}: {program} --help shows the flags."
            )
        if len(rest) > len(self.arguments) and "..." not in self.arguments:
            extra = rest[len(self.arguments)]
            raise UserError(f"{program} has no use for the argument {extra}: leave it out.")
        return values, rest

    def help(self, argv: Sequence[str] = ()) -> str:
        """Returns the help page, with the keys of the config that `argv` names.

        Raises:
            UserError: a flag in `argv` is wrong.
        """
        values, _ = self._parse(argv)
        usage = [self._program(), *(["OUT"] if self.operand else []), *self.arguments]
        usage += [
            f"--{name}={_placeholder(values[name])}"
            for name in self.required
            if name != self.operand
        ]
        lines = [f"usage: {' '.join(usage)} [FLAGS]", "", self.about.strip(), "", "flags:"]
        for name in values:
            flag = values[name]
            if "-" in name or "." in name:  # an alias, or a key of the config
                continue
            name = f"--[no]{name}" if flag.boolean else f"--{name}={_placeholder(flag)}"
            default = f" Default: {flag.default}." if flag.default else ""
            about = re.sub("^<.*>: ", "", flag.help)  # the choices, as absl lists them
            if isinstance(flag.parser, flags.EnumParser):
                about += f" One of {', '.join(flag.parser.enum_values)}."
            lines += [f"  {name}", *textwrap.wrap(f"{about}{default}", 92, **_indent(6))]
        if self.config is None:
            return "\n".join(lines)
        lines += ["", "Configs that come with diffcf_jax (a file of your own does as well):"]
        lines += textwrap.wrap(", ".join(shipped.config_names()), 96, **_indent(2))
        if values.config is None:
            lines += [
                "",
                "Every key of a config is a flag too: add --config NAME to see them here.",
            ]
        else:
            lines += ["", f"keys of {values['config'].config_filename}, with their values there:"]
            lines += _keys("--config", values.config.to_dict())
        return "\n".join(lines)

    def _parse(self, argv: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
        values = flags.FlagValues()
        values.set_gnu_getopt()
        words = ["diffcf", *argv]
        if self.config is not None:
            words = _find_configs(words)
            config_flags.DEFINE_config_file(
                "config", None, self.config, flag_values=values, sys_argv=words
            )
        self.define(values)
        try:
            rest = values(words)[1:]
            if self.config is not None and values.config is not None:
                values.config.to_dict()  # a config file that did not load fails at its first use
            return values, rest
        except (AttributeError, KeyError) as error:
            # An error in an error: quoted, with escaped line ends.
            what = re.sub(r"[\\'\"]+", "'", str(error.args[0]).replace("\\n", " ")).strip("' ")
            what = re.sub(r"^(\S+)'\s+Did", r"\1. Did", what)
            raise UserError(f"The config has no such key: {what}") from None
        except (flags.Error, TypeError, ValueError, OSError, ImportError) as error:
            # What a config file raises comes as a traceback, whose end says what is wrong.
            text = re.sub(r"Error whilst parsing.*^\w+Error: ", "", str(error), flags=re.S | re.M)
            raise UserError(" ".join(map(str.strip, text.splitlines()))) from None

    def _program(self) -> str:
        return self.program if isinstance(self.program, str) else self.program()


def define_path(values: flags.FlagValues, name: str, about: str) -> None:
    """Defines a flag whose value is a path, with "~" for the home directory."""
    flags.DEFINE(_PathParser(), name, None, about, values, flags.ArgumentSerializer())


def keep_memory() -> None:
    """Has the process keep the memory that it frees, for its next use of it (glibc only).

    XLA allocates the temporaries of a program anew at each call. By default glibc maps large
    blocks and gives them back to the system, which then clears every page of them again: a fifth
    of the CPU time of a small network's update. One heap that never shrinks has its pages ready.
    It can also grow to twice what a large program needs, whose blocks come and go in changing
    order.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_ARENA_MAX, 1)


class _PathParser(flags.ArgumentParser):
    syntactic_help = "a path"

    def parse(self, argument: str | Path) -> Path | None:
        return Path(argument).expanduser() if argument else None

    def flag_type(self) -> str:
        return "path"


def _find_configs(words: Sequence[str]) -> list[str]:
    """Replaces the names of shipped configs by their files."""
    words = list(words)
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("--config", "-config") and equals:
            words[i] = f"{name}={shipped.find_config(value)}"
        elif name in ("--config", "-config") and i + 1 < len(words):
            words[i + 1] = shipped.find_config(words[i + 1])
    return words


def _keys(prefix: str, values: Mapping[str, Any]) -> list[str]:
    """Returns a line for each key, those of sections with their names in front."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += _keys(f"{prefix}.{key}", value)
        else:
            lines.append(f"  {prefix}.{key}={value}")
    return lines


def _placeholder(flag: flags.Flag) -> str:
    if isinstance(flag.parser, flags.EnumParser):
        return flag.name.upper()
    return {"config object": "NAME_OR_FILE", "int": "N", "path": "PATH"}.get(
        flag.flag_type(), "TEXT"
    )


def _indent(columns: int) -> dict[str, str]:
    return {"initial_indent": " " * columns, "subsequent_indent": " " * columns}


def _start_output() -> None:
    """Prints what the terminal cannot encode with escapes, and warnings in one line each."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="warning: %(message)s")
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax reports every step of a save


def _set_up_jax() -> None:
    import jax  # here: `--help` and wrong flags need not wait for it

    from diffcf_jax.cache import keep_compiled_programs

    jax.config.update("jax_enable_x64", False)  # everything is made for float32
    keep_compiled_programs()


def _fail(error: Exception | str) -> int:
    print(f"error: {error}", file=sys.stderr)
    return _FAILED
