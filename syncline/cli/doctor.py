"""`syncline doctor`: what this machine has, what each stamp means, what to do about the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from syncline.cli.doctor_checks import Finding

MARKS = {"ok": "ok  ", "note": "-   ", "warn": "WARN", "fail": "FAIL"}


def doctor(
    *files: Path,
    data: Path = Path(),
    config: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Examine the machine: packages, runtime, sensors, clocks, buses, disk, models.

    Ends with exit code 1 when something that syncline cannot do without is missing. Given files,
    it examines these instead: what each is, what is in it, and what its stamps mean.

    Args:
        files: Recordings of cameras, receivers, buses and inertial sensors, in any format.
        data: Folder for recordings; its free space is looked at.
        config: An edge.toml: each of its cameras is opened for a few frames, and what comes, what
            its stamps mean and how well they are known is told.
        json_: Print one JSON object instead of lines.
    """
    import msgspec

    from syncline.cli.doctor_checks import Machine, examine
    from syncline.cli.doctor_files import examine_file

    findings = [examine_file(path) for path in files] if files else examine(Machine(data))
    if config is not None:
        from syncline.cli.doctor_sensors import configured

        findings += configured(config)
    if json_:
        print(msgspec.json.encode({"findings": findings}).decode())
    else:
        for line in screen(findings):
            print(line)
    return int(any(finding.state == "fail" for finding in findings))


def screen(findings: list[Finding]) -> list[str]:
    """The findings as lines: one per finding, its remedy below it."""
    lines: list[str] = []
    area = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            lines.append(area)
        lines.append(f"  {MARKS[finding.state]} {finding.what}: {finding.detail}")
        if finding.remedy:
            lines.append(f"         -> {finding.remedy}")
    count = {state: sum(f.state == state for f in findings) for state in MARKS}
    lines.append(f"{count['ok']} ok, {count['warn']} to look at, {count['fail']} missing")
    return lines
