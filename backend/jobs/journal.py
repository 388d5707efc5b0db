"""The workers' log: one JSON object a line (time, level, event, run_id and facts), the last few hundred kilobytes of it."""

import contextlib
import json
import logging
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path

NAME = ".worker.log"
MOST_BYTES = 500_000  # then it becomes `.worker.log.1`, in place of the one before

log = logging.getLogger("certscope.jobs")


def note(event: str, run_id: str | None = None, level: int = logging.INFO, **facts) -> None:
    """Write one line."""
    log.log(level, event, extra={"run_id": run_id, "facts": facts})


def open_journal(root: Path) -> None:
    """Send this process's log, its warnings too, to the file under root."""
    path = root / NAME
    turn_over(path)
    target = WatchedFileHandler(path)  # several workers write; one that turns the file over must not lose the others
    target.setFormatter(_JsonLine())
    logging.basicConfig(handlers=[target], level=logging.INFO, force=True)
    logging.captureWarnings(True)


def turn_over(path: Path) -> None:
    """Put a log that has become long aside."""
    with contextlib.suppress(FileNotFoundError):  # there is none yet, or another process has just done it
        if path.stat().st_size > MOST_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "run_id": getattr(record, "run_id", None),
            "pid": record.process,
        }
        return json.dumps(line | getattr(record, "facts", {}), ensure_ascii=False)
