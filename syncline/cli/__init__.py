"""The `syncline` command: a table of commands, each imported only when it runs."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, CycloptsError

from syncline import __version__
from syncline.errors import StorageError, SynclineError, UsageError
from syncline.output import reason_of, remedy_of

_GROUPS = {
    "time": "Ask, watch, simulate and re-time the clocks.",
    "log": "Inspect, recover, convert, cut and view recorded logs.",
    "model": "Import, check, quantise, bench and promote models.",
    "dataset": "Make and export immutable dataset versions.",
    "sensors": "Calibrate and inspect sensors.",
    "keys": "Make and list device, server and signing keys.",
}

# (group, command) -> "module:function", one-line help
_COMMANDS: dict[tuple[str, str], tuple[str, str]] = {
    ("", "collect"): ("syncline.cli.collect:collect", "Receive, store and acknowledge records."),
    ("keys", "new"): ("syncline.cli.keys:new", "Make a CURVE pair for a device or collector."),
    ("keys", "signing"): ("syncline.cli.keys:signing", "Make an Ed25519 pair that signs models."),
    ("keys", "enrol"): ("syncline.cli.keys:enrol", "Let a device in."),
    ("keys", "revoke"): ("syncline.cli.keys:revoke", "Shut a device out."),
    ("keys", "list"): ("syncline.cli.keys:list_keys", "Show the enrolled devices."),
    ("dataset", "create"): ("syncline.cli.dataset:create", "Freeze stored frames as a version."),
    ("dataset", "list"): ("syncline.cli.dataset:list_", "List the versions."),
    ("dataset", "export"): ("syncline.cli.dataset:export", "Write a version as COCO."),
    ("model", "sign"): ("syncline.cli.model_registry:sign", "Sign a bundle."),
    ("model", "add"): ("syncline.cli.model_registry:add", "Take a bundle into the registry."),
    ("model", "promote"): ("syncline.cli.model_registry:promote", "Move a channel to a version."),
    ("model", "rollback"): ("syncline.cli.model_registry:rollback", "Move a channel back."),
    ("model", "channel"): ("syncline.cli.model_registry:channel", "Show a channel's history."),
    ("", "demo"): ("syncline.cli.demo:demo", "A synthetic drive through the whole system."),
    ("log", "view"): ("syncline.cli.log_view:view", "Draw the timing of a drive."),
    ("sensors", "calibrate"): (
        "syncline.cli.sensors_calibrate:calibrate",
        "Camera-IMU time offset from a drive.",
    ),
    ("sensors", "group"): (
        "syncline.cli.sensors_group:group",
        "Frames of several cameras that saw the same moment.",
    ),
    ("time", "retime"): (
        "syncline.cli.time_retime:retime",
        "Better times for a drive that is over.",
    ),
    ("", "doctor"): ("syncline.cli.doctor:doctor", "Examine this machine; say what to do."),
    ("", "run"): ("syncline.cli.run:run", "Run the edge daemon."),
    ("", "replay"): ("syncline.cli.replay:replay", "Run a model over a recording."),
    ("log", "info"): ("syncline.cli.log_info:info", "Show what a recording holds."),
    ("log", "recover"): ("syncline.cli.log_recover:recover", "Save what can be read."),
    ("log", "cut"): ("syncline.cli.log_cut:cut", "Write part of a recording."),
    ("log", "convert"): ("syncline.cli.log_convert:convert", "ROS 2 bags to ours, ours to Rerun."),
    ("model", "import"): ("syncline.cli.model_import:import_", "Bring a foreign ONNX model in."),
    ("model", "check"): ("syncline.cli.model_check:check", "Examine a model; say what to do."),
    ("model", "bench"): ("syncline.cli.model_bench:bench", "CPU time of models, side by side."),
    ("model", "quantize"): ("syncline.cli.model_quantize:quantize", "Quantise, behind a gate."),
    ("time", "status"): ("syncline.cli.time_status:status", "Show state, bounds and sources."),
    ("time", "watch"): ("syncline.cli.time_status:watch", "Show them live."),
    ("time", "serve"): ("syncline.cli.time_status:serve", "Run the time service alone."),
    ("time", "simulate"): ("syncline.cli.time_simulate:simulate", "Play a scenario."),
}


def build_app() -> App:
    """The whole command tree; nothing but cyclopts is imported until a command runs."""
    app = App(
        name="syncline",
        help="When every pixel was exposed, how sure of it, and better models because of it.",
        version=__version__,
        version_flags=["--version"],
        result_action="return_value",
    )
    groups = {name: App(name=name, help=text) for name, text in _GROUPS.items()}
    used = {group for group, _ in _COMMANDS if group}
    for (group, command), (target, text) in _COMMANDS.items():
        parent = groups[group] if group else app
        parent.command(target, name=command, help=text)
    for name in sorted(used):
        app.command(groups[name])
    return app


def _take_verbosity(argv: list[str]) -> int:
    """Remove -v/-vv from the arguments; returns the count."""
    count = 0
    for flag, weight in (("-v", 1), ("-vv", 2), ("--verbose", 1)):
        while flag in argv:
            argv.remove(flag)
            count += weight
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors become one line on stderr and the documented exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    verbosity = _take_verbosity(args)
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s %(message)s")
    try:
        result = build_app()(args, exit_on_error=False, print_error=False)
    except SynclineError as error:
        return _tell(error, verbosity)
    except CycloptsError as error:
        return _tell(_flag_error(error), verbosity)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _tell(_stray(error), verbosity)
    except KeyboardInterrupt:
        return 130
    return result if isinstance(result, int) else 0


def entry() -> NoReturn:
    """The program: `main`, and an end that no thread can spoil.

    A thread that is still inside a native library when the interpreter is taken down ends the
    process with an abort, whatever the command's outcome: a hung run, a model half loaded. What
    must be kept is closed by then, so such a process leaves at once.
    """
    code = main()
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    for thread in others:
        if not thread.daemon:
            thread.join()
    if any(thread.is_alive() for thread in others):
        logging.shutdown()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _tell(error: SynclineError, verbosity: int) -> int:
    """One line on stderr; returns the exit code."""
    sys.stderr.write(f"syncline: {error}\n")
    if verbosity >= 2:
        logging.getLogger(__name__).debug("traceback", exc_info=error)
    return error.exit_code


def _flag_error(error: CycloptsError) -> UsageError:
    """What the parser refused, as one of ours: its words, and where the flags are told."""
    text = " ".join(str(error).split()).removesuffix(".")
    command = " ".join(("syncline", *(error.command_chain or ())))
    made = UsageError(text, remedy=f"See: {command} --help")
    made.__cause__ = error
    return made


def _stray(error: OSError) -> StorageError:
    """The net under the commands: what the system refused where nobody expected it to."""
    place = "" if error.filename is None else f"{error.filename}: "
    made = StorageError(f"{place}{reason_of(error)}", remedy=remedy_of(error))
    made.__cause__ = error
    return made
