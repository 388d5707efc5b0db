"""A run folder: the contract between whoever executes a spec and whoever reads its results.

The only module that names a run's files. Rows are appended and flushed; everything else is written aside and
renamed, so a process killed at any moment leaves a folder that another one resumes.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

from backend.files import (
    ASIDE,
    append_tsv,
    columns_of,
    content_of,
    count_rows,
    drop_half_row,
    packed,
    place_of,
    read_tsv,
    write_aside,
)
from backend.process import is_here
from backend.rows import EPOCH_COLUMNS, Certificate, Epoch, Row, epoch_read
from backend.spec import RunSpec, SpecError, check_run_id

LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
DELETED = ".deleted-"  # a run folder on its way out
STATES = ("queued", "running", "finished", "failed", "cancelled", "interrupted")


class RunError(RuntimeError):
    """A run folder that cannot be used as asked; the message says why and what to do."""


class Run:
    """The folder of one run. Reading never changes it."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.run_id = check_run_id(self.path.name)
        self.spec_file = self.path / "spec.json"
        self.training_file = self.path / "training.tsv"
        self.certificates_file = self.path / "certificates.tsv"  # packed in what ships
        self.weights_file = self.path / "model.safetensors"
        self.checkpoint_file = self.path / "checkpoint.safetensors"
        self.state_file = self.path / "state.json"
        self.environment_file = self.path / "environment.json"
        self.log_file = self.path / "log.txt"
        self.lock_file = self.path / "lock"

    @classmethod
    def create(cls, root: Path, spec: RunSpec) -> "Run":
        """The folder of `spec` under `root`, made if it is not there. Raises RunError where another spec lies there."""
        run = cls(Path(root) / spec.run_id)
        run.path.mkdir(parents=True, exist_ok=True)
        if not run.spec_file.exists():
            write_aside(run.spec_file, spec.to_json().encode())
        elif run.spec != spec:
            raise RunError(f"{run.path} holds another spec; move it away or change the seed")
        return run

    @property
    def spec(self) -> RunSpec:
        """spec.json. Raises RunError where there is none, or one that this version does not read."""
        try:
            return RunSpec.from_json(self.spec_file.read_text())
        except FileNotFoundError:
            raise RunError(f"{self.path} is not a run folder: it has no {self.spec_file.name}") from None
        except OSError as error:
            raise RunError(f"{self.spec_file} cannot be read: {error.strerror}") from error
        except (SpecError, UnicodeDecodeError, RecursionError) as error:
            raise RunError(f"{self.spec_file}: {error}") from error

    @property
    def network(self) -> str:
        """What runs of the same weights have in common: the id of the run that trained them, or what stands for a file of elsewhere. Raises RunError as `spec` does."""
        return self.spec.weights_of or self.run_id

    # states

    def state(self, mine: bool = False) -> dict:
        """state.json, where a running state whose process is gone, or was before a restart, reads as interrupted.

        The lock tells: pids and clocks have no part in it. mine: the caller holds the run, so that nobody else runs it. Raises RunError for a file that tells no known state.
        """
        state = self._read_state()
        if state["state"] == "running" and is_here(state) and (mine or not self._locked()):
            state = self._read_state()  # it may have ended between the two looks
            if state["state"] == "running":
                return {**state, "state": "interrupted"}
        return state

    def _read_state(self) -> dict:
        state = _read_json(self.state_file) or {"state": "interrupted"}
        if not isinstance(state, dict) or state.get("state") not in STATES:
            raise RunError(f"{self.state_file} tells no state that this version knows")
        if any(type(state.get(name, 0)) is not int for name in ("ticket", "priority")):
            raise RunError(f"{self.state_file} has a ticket or a priority that is no whole number")
        return state

    def set_state(self, state: str, **facts) -> None:
        """Write state.json at once and whole: the state, since when, and facts that JSON can hold."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps({"state": state, "since": now, **facts}, ensure_ascii=False)
        write_aside(self.state_file, text.encode(errors="replace"))  # an error may name a path that is no UTF-8

    @contextlib.contextmanager
    def held(self, patience: float = 1.0, inherited: int | None = None) -> Iterator[int]:
        """Hold the run for executing it; the operating system lets go when the process dies.

        Yields the lock's file descriptor. A child that inherits it holds the run on, and gives it as `inherited`. Raises RunError where another process still holds it after `patience` seconds (a reader that asks for the
        state does so for an instant).
        """
        deadline = time.monotonic() + patience
        gone = f"{self.run_id} was deleted meanwhile"
        try:  # the opening alone: what the caller does under the lock raises errors of its own
            lock = os.open(self.lock_file, LOCK_FLAGS, 0o644) if inherited is None else inherited
        except FileNotFoundError:
            raise RunError(gone) from None
        except OSError:
            self.refuse_links()  # the reason, where that is it
            raise
        with open(lock, "w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise RunError(f"{self.run_id} is being worked on by another process") from None
                    time.sleep(0.02)
            if not self._is_lock(lock.fileno()):
                raise RunError(gone)
            yield lock.fileno()

    def _is_lock(self, descriptor: int) -> bool:
        """Whether an open file is the lock still: the folder may have been deleted meanwhile, and made again."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.lock_file.stat())
        except FileNotFoundError:
            return False

    def _locked(self) -> bool:
        try:
            with open(self.lock_file) as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError as error:
            raise RunError(f"{self.lock_file} cannot be read: {error.strerror}") from error
        return False

    # rows

    def refuse_links(self) -> None:
        """Raise RunError where what is opened for writing is a link: a run folder may be anybody's, and what it leads to is not."""
        for file in (self.lock_file, self.training_file, self.certificates_file, self.log_file):
            if file.is_symlink():
                raise RunError(
                    f"{file} is a link, through which another file would be written: delete it, or put that file in its place"
                )

    def append(self, row: Row) -> None:
        """Add one row to the folder. An epoch's row comes before its checkpoint: see `resume_point`."""
        if isinstance(row, Certificate):
            append_tsv(self.certificates_file, asdict(row))
        elif isinstance(row, Epoch):
            columns = {name: getattr(row, name) for name in EPOCH_COLUMNS}
            append_tsv(self.training_file, columns | row.terms, durable=True)
        elif row.final:
            write_aside(self.weights_file, row.tensors)
            self.checkpoint_file.unlink(missing_ok=True)
        else:
            write_aside(self.checkpoint_file, row.tensors)

    def finish(self) -> None:
        """Say that nothing is missing, once the rows are on the disk: whoever reads `finished` finds them all."""
        if self.certificates_file.exists():
            with open(self.certificates_file, "rb") as file:
                os.fsync(file.fileno())
        self.set_state("finished")

    def epochs(self) -> list[dict]:
        """training.tsv: a dict an epoch, numbers as float. A half-written last row is not there."""
        try:
            return [epoch_read(row) for row in read_tsv(self.training_file)]
        except (TypeError, ValueError) as error:
            raise RunError(f"{self.training_file} holds a row that is no epoch: {error}") from error

    def certificates(self) -> list[Certificate]:
        """certificates.tsv in the order written. A half-written last row is not there."""
        kinds = Certificate.__annotations__
        try:
            rows = read_tsv(self.certificates_file)
            certificates = [Certificate(**{name: kinds[name](value) for name, value in row.items()}) for row in rows]
            if wrong := [c.time for c in certificates if not (isfinite(c.time) and c.time >= 0)]:
                raise ValueError(f"it took {wrong[0]} seconds")
            return certificates
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.certificates_file} holds a row that is no certificate: {error}") from error

    def content(self, file: Path) -> bytes | None:
        """The bytes of one of its files, unpacked where it ships packed; None where it is not there. Raises RunError for one that cannot be unpacked."""
        try:
            return content_of(file)
        except ValueError as error:
            raise RunError(f"{self.path}: {error}") from error

    def count(self) -> tuple[int, int]:
        """(epochs, certificates) written so far, by counting lines: cheap enough to ask every second. Raises RunError as `content` does."""
        epochs, certificates = (count_rows(self.content(file)) for file in (self.training_file, self.certificates_file))
        return epochs, certificates

    def resume_point(self, checkpoint_epoch: int) -> set[int]:
        """Make the folder fit for appending: drop half rows, epochs after the checkpoint's, a checkpoint not needed.

        Returns the indices of the images that are certified already. Raises RunError where another version began it, whose rows have
        other columns.
        """
        for rest in self.path.glob(ASIDE + "*"):  # of a process that was killed
            rest.unlink(missing_ok=True)
        if (small := place_of(self.certificates_file)) != self.certificates_file:  # rows are appended to plain text
            write_aside(self.certificates_file, self.content(self.certificates_file))
            small.unlink()
        drop_half_row(self.training_file)
        drop_half_row(self.certificates_file)
        for file, wanted in (
            (self.certificates_file, set(Certificate.__annotations__)),
            (self.training_file, set(EPOCH_COLUMNS)),
        ):
            if (begun := columns_of(file)) and not wanted <= begun:
                raise RunError(
                    f"{file} was begun by another version, without {', '.join(sorted(wanted - begun))}: delete its folder and start the run anew"
                )
        if self.weights_file.exists():
            self.checkpoint_file.unlink(missing_ok=True)
        rows = self.training_file.read_text().splitlines(True) if self.training_file.exists() else []
        if len(rows) > 1 + checkpoint_epoch:
            write_aside(self.training_file, "".join(rows[: 1 + checkpoint_epoch]).encode())
        return {c.idx for c in self.certificates()}

    def leftovers(self) -> list[tuple[Path, str]]:
        """Files that nobody needs who does not execute the run just now, with the reason."""
        rest = [(path, "a process was killed while it wrote") for path in self.path.glob(ASIDE + "*")]
        if self.weights_file.exists() and self.checkpoint_file.exists():
            rest.append((self.checkpoint_file, "training is finished"))
        return rest

    # weights and circumstances

    def weights(self) -> bytes | None:
        """The base classifier as safetensors bytes; None before it is trained."""
        return self.weights_file.read_bytes() if self.weights_file.exists() else None

    def weights_sha256(self) -> str | None:
        """In hex digits, of the file's bytes; None before it is trained."""
        weights = self.weights()
        return hashlib.sha256(weights).hexdigest() if weights is not None else None

    def checkpoint(self) -> bytes | None:
        """What `training.loop.snapshot` made after the last whole epoch; None before the first."""
        return self.checkpoint_file.read_bytes() if self.checkpoint_file.exists() else None

    def environment(self) -> dict:
        """What the rows rest on; of earlier ones that rest on something else, under `earlier`. {} where nothing is known."""
        facts = _read_json(self.environment_file) or {}
        if not _is_environment(facts):
            raise RunError(f"{self.environment_file} does not map names to what they are")
        return facts

    def devices(self) -> list[str]:
        """What its rows were computed on, in order: of a run that was resumed elsewhere several."""
        facts = self.environment()
        return list(
            dict.fromkeys(str(one["device"]) for one in (*facts.get("earlier", ()), facts) if one.get("device"))
        )

    def set_environment(self, facts: dict) -> None:
        """Write down what the rows from here on rest on; other circumstances of earlier rows are kept under `earlier`."""
        before = self.environment()
        earlier = before.pop("earlier", [])
        if any(facts.get(name, value) != value for name, value in before.items()):
            epochs, images = self.count()
            earlier.append(before | {"until_epoch": epochs, "until_image_row": images})
        facts = {name: value for name, value in facts.items() if name != "earlier"}
        write_aside(
            self.environment_file, json.dumps(facts | ({"earlier": earlier} if earlier else {}), indent=2).encode()
        )

    def portable(self, weights: bool = True) -> list[Path]:
        """The files that make the folder complete elsewhere, as far as they are there: no lock, log or checkpoint."""
        files = (*self._read_by_the_store(), *([self.weights_file] if weights else ()))
        return [file for file in files if file.exists()]

    def compact(self, file: Path) -> tuple[str, bytes]:
        """Name and content of one of `portable` as it ships: a row an image, packed to a quarter."""
        return packed(file) if file == self.certificates_file else (file.name, file.read_bytes())

    def _read_by_the_store(self) -> tuple[Path, ...]:
        certificates = place_of(self.certificates_file)
        return self.spec_file, self.state_file, self.training_file, certificates, self.environment_file

    def fingerprint(self) -> str:
        """Changes whenever a file that the store reads changes."""
        parts = []
        for file in self._read_by_the_store():
            stat = file.stat() if file.exists() else None
            parts.append(f"{stat.st_size}:{stat.st_mtime_ns}" if stat else "-")
        return ",".join(parts)


def all_runs(root: Path) -> Iterator[Run]:
    """Every run folder under root, in the order of their names."""
    for path in sorted(Path(root).glob("*/spec.json")):
        with contextlib.suppress(SpecError):
            yield Run(path.parent)


def find_run(run_id: str, *roots: Path) -> Run:
    """The run folder of that name in the first root that has it with weights, or has it. Raises RunError if none does."""
    check_run_id(run_id)
    runs = [run for root in roots if (run := Run(Path(root) / run_id)).spec_file.exists()]
    if runs:
        return next((run for run in runs if run.weights_file.exists()), runs[0])
    raise RunError(
        f"there is no run {run_id!r} under {', '.join(map(str, roots))}: `python -m backend runs` lists all, those that were imported, and have no weights here, too"
    )


def _is_environment(facts) -> bool:
    """Whether it maps names to facts, and those that something is decided by have their types."""
    if not isinstance(facts, dict) or type(facts.get("missing_classes", 0)) is not int:
        return False
    lists = [(facts.get(name, []), kind) for name, kind in (("earlier", dict), ("classes", str), ("shape", int))]
    return all(isinstance(some, list) and all(isinstance(one, kind) for one in some) for some, kind in lists)


def _read_json(path: Path) -> dict | None:
    try:
        content = json.loads(path.read_text())
        # Half a surrogate pair is JSON, and no page can be sent with it.
        json.dumps(content, ensure_ascii=False).encode()
        return content
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not JSON: {error}") from error
