"""What TensorBoard's own thread cannot write is one line of the run's."""

from __future__ import annotations

import errno
import threading

import pytest

from chromatune.errors import DataError

pytest.importorskip("tensorboard")


@pytest.mark.parametrize("fails", ["open", "later"])
def test_a_full_disk_is_one_line_that_names_the_folder(start, monkeypatch, capfd, fails):
    """The thread keeps its failure for the next call, and threads print theirs."""
    from tensorboard.summary.writer import record_writer

    calls, write = [], record_writer.RecordWriter.write

    def full(self, data):
        calls.append(data)
        if fails == "open" or len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    usual = threading.excepthook
    monkeypatch.setattr(record_writer.RecordWriter, "write", full)
    with pytest.raises(
        DataError, match=r"run.tensorboard: cannot be written \(the disk is full\); .*make room"
    ) as error:
        start()
    assert "\n" not in str(error.value) and "Exception in thread" not in capfd.readouterr().err
    assert threading.excepthook is usual


def test_other_threads_report_as_ever(start, monkeypatch):
    reported = []
    monkeypatch.setattr(threading, "excepthook", reported.append)

    def fail(row=None):
        raise ValueError("mine")

    from chromatune.training import loop

    known = loop.learning_rate

    def learning_rate(*args):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        return known(*args)

    monkeypatch.setattr(loop, "learning_rate", learning_rate)
    start(max_steps=1)
    assert reported and all(str(failed.exc_value) == "mine" for failed in reported)
