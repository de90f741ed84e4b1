"""Arrays and plots as image files and data URIs."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from chromatune.reports import beside, data_uri, jpeg_of, new_figure, plain_label, png_of, png_of_figure
from chromatune.reports.pictures import LONGEST_LABEL


def test_colors_keep_their_order():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    for data in (png_of(red), jpeg_of(red, 100)):
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        blue, green, found = picture[4, 4]
        assert (blue < 5, green < 5, abs(int(found) - 200) < 5) == (True, True, True)


def test_pictures_beside_each_other_are_as_they_were():
    first, second = np.zeros((5, 4, 3), np.uint8), np.full((5, 7, 3), 9, np.uint8)
    both = beside([first, second], gap_px=2)
    assert both.shape == (5, 4 + 2 + 7, 3)
    np.testing.assert_array_equal(both[:, :4], first)
    np.testing.assert_array_equal(both[:, 6:], second)
    assert (both[:, 4:6] == 255).all()


def test_a_data_uri_holds_the_bytes():
    head, data = data_uri(b"\x00\xff", "png").split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == b"\x00\xff"


def test_equal_plots_are_equal_bytes():
    def draw() -> bytes:
        figure = new_figure(2.0, 1.5)
        figure.add_subplot().plot([1, 3, 2], label=plain_label("$x"))
        return png_of_figure(figure)

    assert draw() == draw()


def test_long_labels_keep_their_ends_and_dollars_are_no_formula():
    shown = plain_label(f"a model, {'a very long prompt ' * 9}, raw")
    assert len(shown) <= LONGEST_LABEL and shown.startswith("a model, a") and shown.endswith("prompt , raw")
    assert plain_label("$a$") == r"\$a\$"
