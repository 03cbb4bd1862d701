"""What was seen, and whether that is all that should be seen: decided from records alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.demo.console import Console


@dataclass(frozen=True)
class Finding:
    """One thing that should be seen.

    Attributes:
        seen: whether it was.
        text: what it is, with the figures that show it; or what came instead.
    """

    seen: bool
    text: str


@dataclass
class Report:
    """What one or more scenes have shown.

    Attributes:
        findings: what should be seen.
        started: how many threads were started.
        finished: how many of them came to their own end.
        stopped: how many of them were stopped.
    """

    findings: list[Finding] = field(default_factory=list)
    started: int = 0
    finished: int = 0
    stopped: int = 0

    def add(self, other: Report) -> None:
        """Take in what another scene has shown."""
        self.findings += other.findings
        self.started += other.started
        self.finished += other.finished
        self.stopped += other.stopped

    def expect(self, text: str, *, seen: bool) -> None:
        """Note something that should be seen."""
        self.findings.append(Finding(seen, text))

    @property
    def complete(self) -> bool:
        """Whether all that should be seen was seen."""
        return bool(self.findings) and all(finding.seen for finding in self.findings)


def tell(report: Report, console: Console) -> None:
    """Write the summary."""
    console.head("What was seen")
    for finding in report.findings:
        console.verdict(finding.text, good=finding.seen)
    console.write(f"\nThreads: {report.started} started, {report.finished} finished, {report.stopped} stopped.")
    missing = sum(not finding.seen for finding in report.findings)
    if report.complete:
        console.write(f"All of it happened, in {console.seconds:.0f} s.")
    else:
        console.write(f"{missing} of {len(report.findings)} did not happen.")
