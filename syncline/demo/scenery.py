"""The demo's drive, rendered by a process of its own.

Rendering takes as long as all the rest together and holds the interpreter's lock for half of it,
so a thread overlaps little. The drive is a pure function of its arguments: where it is rendered
changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Generator
from dataclasses import dataclass
from typing import IO, Any

import cv2

from syncline.errors import SynclineError
from syncline.sensors.synthetic.drive import DriveEvent, SyntheticDrive

PIPE_BYTES = 1 << 20
"""What the renderer may be ahead: one picture, beside the one it makes."""

STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class DriveSpec:
    """Arguments of the drive."""

    seed: int
    seconds: float
    boot_id: str
    utc0_ns: int

    def drive(self) -> SyntheticDrive:
        """The drive itself; nothing is rendered yet."""
        return SyntheticDrive(self.seed, self.seconds, boot_id=self.boot_id, utc0_ns=self.utc0_ns)


@dataclass(frozen=True, slots=True)
class _End:
    """Last thing in the pipe; `error` is the renderer's trace, empty when all is well."""

    error: str = ""


class RenderProcess:
    """Renders a drive in a child process; its events come through a pipe, in order.

    Memory: the scene in the child, `PIPE_BYTES` between, one event here. The child ends when it is
    done, when this is closed, and when this process dies.

    Args:
        spec: The drive.
    """

    def __init__(self, spec: DriveSpec) -> None:
        self._process = subprocess.Popen(
            # By its importable name: what is pickled there must be readable here.
            [sys.executable, "-c", "from syncline.demo.scenery import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._events: IO[bytes] = self._process.stdout
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._events, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        # A child that died at once is told apart by the end of its pipe.
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stream:
            pickle.dump(spec, stream)

    @property
    def pid(self) -> int:
        """Process id of the renderer."""
        return self._process.pid

    def events(self) -> Generator[DriveEvent, None, None]:
        """Everything, by raw time of arrival; see `SyntheticDrive.events`.

        Raises:
            SynclineError: The renderer failed or was ended.
        """
        while True:
            try:
                # The child is our own program: nobody else writes into this pipe.
                item: Any = pickle.load(self._events)  # noqa: S301
            except (EOFError, pickle.UnpicklingError, ValueError) as error:
                raise SynclineError(
                    f"the renderer ended early, exit status {self._process.poll()}",
                    remedy="Look at memory and limits of this machine",
                ) from error
            if not isinstance(item, _End):
                yield item
            elif item.error:
                raise SynclineError(f"the renderer failed: {item.error}", remedy="Report this")
            else:
                return

    def close(self) -> None:
        """End the renderer, done or not."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._events.close()


def main() -> None:
    """The child: reads a `DriveSpec`, writes its events."""
    # Ctrl-C reaches the whole group; the parent says what there is to say.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # The other core is taken by the parent; the pixels are the same with one thread.
    cv2.setNumThreads(1)
    spec: DriveSpec = pickle.load(sys.stdin.buffer)  # noqa: S301
    out = sys.stdout.buffer
    end = _End()
    try:
        for event in spec.drive().events():
            pickle.dump(event, out, protocol=5)
            out.flush()
    except BrokenPipeError:
        return
    except Exception as error:  # noqa: BLE001 - told by the parent
        traceback.print_exc()
        end = _End(f"{type(error).__name__}: {error}")
    with contextlib.suppress(BrokenPipeError):
        pickle.dump(end, out)
        out.flush()
