"""Only regular files are opened: no pipes that hang, no devices without an end."""

import errno
import os

import pytest

from chromatune.files import open_regular, read_regular


def test_regular_file_is_read_through_a_link(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "link") == b"content"
    with open_regular(tmp_path / "a") as file:
        assert file.read(3) == b"con"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_named_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file") as caught:
        open_regular(tmp_path / "pipe")
    assert caught.value.errno == errno.EINVAL


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no such device on this system")
def test_device_is_refused():
    with pytest.raises(OSError, match="not a file"):
        read_regular("/dev/zero")


def test_folder_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


def test_size_limit_holds_before_reading(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_regular(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes") as caught:
        read_regular(tmp_path / "a", 4)
    assert caught.value.errno == errno.EFBIG
