"""`ivy doctor`: what a remote node fails on, each with what to do about it. Changes nothing."""

import argparse
import json
import sys
from collections.abc import Iterator

from ivy.cli.doctor import checks_network, checks_node
from ivy.cli.doctor.finding import Finding


def show(arguments: argparse.Namespace) -> int:
    """Print the findings as they come; 0 only if all is well."""
    findings = []
    for finding in _examine():
        findings.append(finding)
        if not arguments.json:
            print(_readable(finding), flush=True)
    bad = [finding for finding in findings if not finding.ok]
    if arguments.json:
        print(json.dumps([{**vars(finding), "ok": finding.ok} for finding in findings], indent=4))
    else:
        need = f"Of {len(findings)} checks, {len(bad)} {'needs' if len(bad) == 1 else 'need'} you."
        print(f"\n{need if bad else 'All is well.'}")
    return 1 if bad else 0


def _examine() -> Iterator[Finding]:
    config, finding = checks_node.config()
    yield finding
    yield from _unless_missing("permissions", checks_node.permissions())
    yield from _unless_missing("disk", checks_node.disk(config))
    yield from _unless_missing("storage", checks_node.storage())
    yield checks_node.time()
    yield from _unless_missing("python", checks_node.python())
    yield from checks_node.package()
    yield from _unless_missing("units", checks_node.services())
    if config is not None:
        yield from _unless_missing("backend", checks_network.backend(config))
        yield from _unless_missing("updates", checks_network.updates(config.updater))


def _unless_missing(check: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings of a check; what it cannot even read is one, too."""
    try:
        yield from findings
    except OSError as error:
        yield Finding(check, str(error), "if it is gone for good: sudo apt install --reinstall ivy")


def _readable(finding: Finding) -> str:
    mark = "ok  " if finding.ok else "BAD "
    if sys.stdout.isatty():
        mark = f"\033[{32 if finding.ok else 31}m{mark}\033[0m"
    line = f"{mark} {finding.check:<12} {finding.text}"
    return line if finding.ok else f"{line}\n     {'':<12} → {finding.remedy}"
