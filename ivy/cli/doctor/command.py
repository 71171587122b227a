"""`ivy doctor`: what a remote node fails on, each with what to do about it. Changes nothing."""

import argparse
import json
import sys
from collections.abc import Iterator

from ivy.cli import output
from ivy.cli.doctor import checks_machine, checks_network, checks_node
from ivy.cli.doctor.finding import TRY_SUDO, Finding
from ivy.constants import JSON_SCHEMA
from ivy.utils.host import rights


def show(arguments: argparse.Namespace) -> int:
    """Print the findings as they come; 0 only if all is well."""
    findings = []
    for finding in _examine():
        findings.append(finding)
        if not arguments.json:
            _say(finding)
    bad = [finding for finding in findings if not finding.ok]
    if arguments.json:
        # In each, not around them: a release of before printed this list.
        forms = [{"schema": JSON_SCHEMA, **vars(finding), "ok": finding.ok} for finding in findings]
        print(json.dumps(forms, indent=4))
    else:
        need = f"Of {len(findings)} checks, {len(bad)} {'needs' if len(bad) == 1 else 'need'} you."
        print(f"\n{need if bad else 'All is well.'}")
    return 1 if bad else 0


def _examine() -> Iterator[Finding]:
    """First what needs root, if that is who asks; the rest has its rights no more."""
    config, finding = checks_node.config()
    yield finding
    yield from checks_node.config_link()
    yield from _unless_missing("permissions", checks_node.permissions())
    yield from _unless_missing("access", checks_node.access())
    if config is not None:
        yield from _unless_missing("updates", checks_network.updates(config.updater))
    rights.give_up()
    yield from _unless_missing("disk", checks_node.disk(config))
    yield from _unless_missing("run", checks_node.room_to_reload())
    yield from _unless_missing("queue", checks_node.queue())
    yield from _unless_missing("storage", checks_node.storage())
    yield checks_node.time()
    yield from _unless_missing("python", checks_node.python())
    yield from checks_node.debian()
    yield from checks_node.package()
    yield from _unless_missing("files", checks_node.files())
    yield from _unless_missing("units", checks_node.services(config))
    yield from checks_machine.machine(config)
    if config is not None:
        yield from checks_node.name(config)
        yield from checks_node.registration()
        yield from _unless_missing("backend", checks_network.backend(config))


def _unless_missing(check: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings of a check; what it cannot even read is one, too."""
    try:
        yield from findings
    except OSError as error:
        if (why := rights.why_not_permitted(error)) is not None:
            yield Finding(check, why, TRY_SUDO)
        elif isinstance(error, PermissionError):  # root has given its rights up: it looks as the services do
            yield Finding(check, f"not for the services to read: {error.filename or error}", checks_node.OWNERS)
        else:
            yield Finding(check, str(error), "if it is gone for good: sudo apt install --reinstall ivy")


def _say(finding: Finding) -> None:
    mark = "ok  " if finding.ok else "BAD "
    output.raw(f"\033[{32 if finding.ok else 31}m{mark}\033[0m" if sys.stdout.isatty() else mark)
    print(f" {finding.check:<12} {output.line(finding.text)}")
    if not finding.ok:
        print(f"     {'':<12} → {output.line(finding.remedy)}")
    sys.stdout.flush()
