import pytest

from backend.home import runs_root
from backend.jobs.forget import forget, look
from backend.plan import certify_again
from backend.run import Run, RunError
from backend.spec import Certification
from backend.store import queries
from backend.store.publish import publish


@pytest.fixture
def trained(home, digits_spec):
    """A finished run of the store."""
    run = Run.create(runs_root(), digits_spec(certification=None))
    run.set_state("finished")
    publish()
    assert run.run_id in queries.run_ids()
    return run


def test_a_deleted_run_is_forgotten_by_the_store(trained):
    forget([trained])
    assert not trained.path.exists()
    assert trained.run_id not in queries.run_ids()


def test_of_a_folder_that_is_a_link_the_link_goes(trained, tmp_path):
    elsewhere = trained.path.rename(tmp_path / trained.run_id)
    trained.path.symlink_to(elsewhere)
    forget([trained])
    assert not trained.path.is_symlink()
    assert (elsewhere / "spec.json").exists()
    assert trained.run_id not in queries.run_ids()


def test_what_goes_is_told_before(trained):
    waiting = Run.create(runs_root(), certify_again(trained.spec, trained.run_id, Certification()))
    waiting.set_state("queued")
    folder = look(trained)
    assert folder.files == len(list(trained.path.iterdir()))
    assert folder.size == sum(file.stat().st_size for file in trained.path.iterdir())
    assert folder.needed_by == (waiting.run_id,)
    assert look(waiting).needed_by == ()
    waiting.weights_file.write_bytes(b"a copy, as it has one from its first moment on")
    assert look(trained).needed_by == ()


def test_a_run_that_is_worked_on_stays(trained):
    with trained.held(), pytest.raises(RunError, match="being worked on"):
        forget([trained])
    assert trained.spec_file.exists()
    assert trained.run_id in queries.run_ids()


@pytest.fixture
def unwritable(trained, home):
    """The store cannot be locked, so not written either."""
    (home / ".publish.lock").unlink()
    (home / ".publish.lock").mkdir()


def test_why_nothing_was_deleted_is_said_before_what_failed_afterwards(trained, unwritable):
    with trained.held(), pytest.raises(RunError, match="being worked on"):
        forget([trained])
    assert trained.spec_file.exists()


def test_a_store_that_cannot_be_written_is_told(trained, unwritable):
    with pytest.raises(RunError, match="the folders are deleted, but the results store"):
        forget([trained])
    assert not trained.path.exists()
