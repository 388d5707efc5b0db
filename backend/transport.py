"""Run folders in one tar file, to a machine without network and back."""

import contextlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from backend.home import runs_root
from backend.run import Run, RunError, all_runs

CONTENTS = "contents.txt"  # the last file of a tar
UNPACKED = ".unpacked-"  # a folder of what comes out of a tar, until it is seen to be whole


def pack(runs: Iterable[Run], out: Path) -> list[str]:
    """Write run folders into a tar file, whose last file names all others; returns their ids. Of no run no file is written, and one that
    is there stays. Raises RunError for a folder that is gone, and for a file that is a link to somewhere else.
    """
    ids, aside = [], out.with_name(f".{out.name}.aside")
    if not (runs := list(runs)):
        return ids
    try:
        with tarfile.open(aside, "w", dereference=True) as tar:  # one file under two names is packed twice
            for run in runs:
                for file in _own_files(run):
                    tar.add(file, f"{run.run_id}/{file.name}")
                ids.append(run.run_id)
            listed = "\n".join(tar.getnames()).encode()
            last = tarfile.TarInfo(CONTENTS)
            last.size = len(listed)
            tar.addfile(last, io.BytesIO(listed))
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)  # of a full disk, say
    return ids


def unpack(file: Path) -> list[str]:
    """Take the run folders of `pack` in among the user's runs; returns the ids of those that were not finished there.

    Raises RunError for a file that was cut off, or holds anything else: a name that is no run folder's, a link, a folder
    without a spec or of a run that is not finished; and where a run of such a name is being worked on here. It takes no more room than the file has: nothing in the tar is unpacked further.
    """
    root = runs_root()
    root.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=root, prefix=UNPACKED))
    try:
        with tarfile.open(file, "r:") as tar:
            if not all(member.isfile() and not member.issparse() for member in tar.getmembers()):
                raise RunError(f"{file} holds a link or another thing that is no plain file; nothing was taken from it")
            tar.extractall(aside, filter="data")
            names = set(tar.getnames())
        try:
            runs = _whole(aside, names)
        except (RunError, OSError, ValueError) as error:
            reason = str(error).replace(f"{aside}/", "")
            raise RunError(f"{file} is not of --pack: {reason}; nothing was taken from it") from error
        new = [run for run in runs if not _finished(Run(root / run.run_id))]
        _move(new, root, aside)
    except (tarfile.TarError, EOFError) as error:
        raise RunError(f"{file} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [run.run_id for run in new]


def _own_files(run: Run) -> list[Path]:
    if not (files := run.portable()):
        raise RunError(f"{run.run_id} was deleted meanwhile")
    for file in files:
        if file.resolve().parent != run.path.resolve():
            raise RunError(f"{file} is a link to {file.resolve()}: put that file in its place")
    return files


def _whole(folder: Path, names: set[str]) -> list[Run]:
    """The runs that came out of a tar of these names, all finished and whole. Raises RunError, OSError and ValueError."""
    contents = {CONTENTS}
    if (listed := folder / CONTENTS).is_file():
        contents |= set(listed.read_text().split("\n"))
        listed.unlink()
    runs = list(all_runs(folder))
    if len(runs) != len(list(folder.iterdir())) or any(run.spec.run_id != run.run_id for run in runs):
        raise RunError("it holds something that is no run folder")
    for run in runs:
        if run.state()["state"] != "finished":
            raise RunError(f"it holds {run.run_id}, which is not finished")
        if others := {path.name for path in set(run.path.iterdir()) - set(run.portable())}:
            raise RunError(f"it holds {', '.join(sorted(others))} in {run.run_id}, which --pack leaves out")
        digest, told = run.weights_sha256(), run.environment().get("weights_sha256")
        if told and digest not in (None, told):
            raise RunError(f"the weights of {run.run_id} are not those that its {run.environment_file.name} names")
    if names != contents:
        raise RunError("it is cut off: its last file must name all others")
    return runs


def _finished(run: Run) -> bool:
    with contextlib.suppress(RunError):  # there is none, or its state cannot be read
        return run.state()["state"] == "finished"
    return False


def _move(runs: list[Run], root: Path, aside: Path) -> None:
    """Move finished runs to root; what lies there of them, begun and not finished, to `aside`: its rows are among these.

    Raises RunError where one of those is being worked on; nothing is moved then.
    """
    with contextlib.ExitStack() as held:
        begun = [Run(root / run.run_id) for run in runs if (root / run.run_id).exists()]
        for run in begun:
            held.enter_context(run.held())
            if _runs_elsewhere(run):
                raise RunError(f"{run.run_id} is running on another machine; nothing was taken")
        held_here = {run.run_id for run in begun}
        for run in runs:
            there, old = root / run.run_id, aside / f"{run.run_id}.begun"
            if run.run_id in held_here:  # not what began since: there the next line fails
                there.rename(old)
            try:
                run.path.rename(there)
            except BaseException:
                if run.run_id in held_here:
                    old.rename(there)
                raise


def _runs_elsewhere(run: Run) -> bool:
    """Of a run that is held here."""
    with contextlib.suppress(RunError):
        return run.state(mine=True)["state"] == "running"
    return False
