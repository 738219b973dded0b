"""A side of the comparison, in a process of its own."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from diffcf_jax.errors import UserError

SIDES = {"diffcf_jax": f"{__package__}.ours", "originals": f"{__package__}.originals"}


class Side:
    """One side's process: answers each command with a line of JSON."""

    def __init__(self, name: str, job: Path, module: str | None = None):
        self._name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed in close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module or SIDES[name], str(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip

    def ask(self, command: str) -> dict[str, Any]:
        """Sends a command and returns the answer: `seconds`, `cpu_seconds` and `result`.

        Raises:
            UserError: the process failed.
        """
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (OSError, json.JSONDecodeError):
            self._log.seek(0)
            reason = ([line for line in self._log.read().splitlines() if line] or ["no message"])[
                -1
            ]
            raise UserError(f"{self._name} failed at '{command}': {reason}") from None

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()
