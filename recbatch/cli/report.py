"""What a job did, as text for people or one JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from recbatch.cli import logs
from recbatch.cli.text import bytes_text, count, duration_text, print_json

if TYPE_CHECKING:
    from recbatch.engine import Report


def print_report(report: Report, *, archive: str, as_json: bool = False, quiet: bool = False) -> None:
    """The outcome of a job, on standard output."""
    if as_json:
        print_json({"event": "report", "schema": 1, **report.to_dict()})
        return
    problems = [f"warning: {problem}" for problem in report.problems]
    for line in problems:
        logs.say(line, level="warning")
    for remark in () if quiet else report.remarks:
        logs.say(f"note: {remark}")
    if not quiet:
        for line in report_lines(report, archive=archive):
            typer.echo(line)
    if report.quarantined and not quiet:
        logs.say(remedy_line(report, archive), level="warning")


def report_lines(report: Report, *, archive: str) -> list[str]:
    if report.dry_run:
        return [
            f"would archive {count(report.images, 'image')} ({bytes_text(report.bytes_in)}); nothing was written"
        ]
    verb = "restored" if report.kind == "restore" else "archived"
    if not report.images and not report.quarantined and report.kind != "restore" and not report.interrupted:
        line = f"nothing new: {archive} has all {count(report.known, 'image')}"
        if report.known_bad:
            line += f", {report.known_bad} of them quarantined (--retry-quarantined tries those again)"
        return [line]
    line = f"{verb} {count(report.images, 'image')} in {duration_text(report.seconds)}"
    line += f" ({report.megapixels_per_second:.2f} MP/s)"
    lines = [line]
    if report.images and report.kind != "restore":
        ratio = report.bytes_out / max(report.bytes_in, 1)
        bpp = f", {8 * report.bytes_out / report.pixels:.3f} bpp" if report.pixels else ""
        lines.append(
            f"{bytes_text(report.bytes_in)} in, {bytes_text(report.bytes_out)} out ({ratio:.0%}{bpp})"
        )
    if report.replaces:
        lines.append(f"{count(report.replaces, 'row')} of the same key replaced: their files have changed")
    if report.known:
        lines.append(f"{count(report.known, 'image')} {verb} before")
    if report.skipped and report.kind == "restore":
        lines.append(f"{count(report.skipped, 'row')} without an image skipped")
    if report.deaths:
        lines.append(f"{count(report.deaths, 'worker')} lost, {count(report.retries, 'shard')} done again")
    if report.interrupted:
        lines.append("interrupted: run the same command again to go on")
    return lines


def remedy_line(report: Report, archive: str) -> str:
    if report.kind == "restore":
        first = "; ".join(f"{key} [{code}]" for key, code, _ in report.failures[:3])
        return f"{count(report.quarantined, 'image')} could not be restored{unnamed_text(report)}: {first}"
    return (
        f"{count(report.quarantined, 'image')} quarantined: see them with "
        f"recbatch ls {archive} --long --where \"status = 'quarantined'\""
    )


def unnamed_text(report: Report) -> str:
    if not report.unnamed:
        return ""
    share = "all" if report.unnamed == report.quarantined else f"{report.unnamed:,}"
    return f", {share} of them in data files whose names can't be read"
