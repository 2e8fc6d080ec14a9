"""How the work of one evaluation was shared."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Accounts:
    """What one evaluation took. A process alone has neither backups nor traffic."""

    examples: int
    seconds: float
    portions: list[int]
    """By replica: its portions that count."""
    backups_issued: int = 0
    backups_won: int = 0
    given_up: int = 0
    """Times that a replica was thought lost."""
    seconds_idle: float = 0.0
    """Summed over replicas: without anything to do, since the evaluation before."""
    shipments: int = 0
    """Sums that were to be sent to the shards."""
    bytes_fetched: int = 0
    """Of all replicas, since the beginning."""
