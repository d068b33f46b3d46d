"""What the demo has proved, and what it has not."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.table import Table

from cli.output import console


@dataclass(frozen=True)
class Fact:
    """A claim, whether it held, and what was seen that says so."""

    claim: str
    holds: bool
    evidence: str


@dataclass
class Ledger:
    facts: list[Fact] = field(default_factory=list)
    step: int = 0
    began: float = field(default_factory=time.monotonic)

    def begin(self, title: str) -> None:
        self.step += 1
        console.print(f"\n[bold cyan]{self.step}. {title}[/bold cyan]", highlight=False)

    def note(self, claim: str, holds: bool, evidence: str) -> None:
        self.facts.append(Fact(claim, holds, evidence))
        mark = "[green]✓[/green]" if holds else "[red]✗[/red]"
        console.print(f"   {mark} {claim} [dim]({evidence})[/dim]", highlight=False)

    def broken(self, sentence: str) -> None:
        self.facts.append(Fact("the story was told to its end", False, sentence))
        console.print(f"   [red]✗ {sentence}[/red]", highlight=False)

    def proved(self) -> bool:
        return bool(self.facts) and all(fact.holds for fact in self.facts)

    def print(self) -> None:
        shown = Table(title="What was proved", title_justify="left", show_lines=False)
        for column in ("", "claim", "evidence"):
            shown.add_column(column, overflow="fold")
        for fact in self.facts:
            shown.add_row("[green]✓[/green]" if fact.holds else "[red]✗[/red]", fact.claim, fact.evidence)
        console.print()
        console.print(shown, highlight=False)
        held, seconds = sum(fact.holds for fact in self.facts), time.monotonic() - self.began
        console.print(
            f"{held} of {len(self.facts)} proved in {seconds:.0f} s",
            style="bold green" if self.proved() else "bold red",
        )
