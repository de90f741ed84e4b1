"""Tables that name photos: their paths, columns and instructions; hostile and damaged ones are one line."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from chromatune.data import Source, open_source, tables, with_columns
from chromatune.data.prompt_sets import drawn_prompt
from chromatune.data.tables import column_names
from chromatune.errors import DataError, OptionsError

FORMS = ("csv", "jsonl", "parquet")


def write_table(path: Path, rows: list[dict]) -> Path:
    import pandas

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pandas.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def prompts_of(source: Source) -> dict[str, str]:
    assert list(source.prompts or {}) == [item.key for item in source.items]
    return dict(source.prompts or {})


@pytest.mark.parametrize("form", FORMS)
def test_metadata_with_an_instruction_for_each_photo(put, draw, tmp_path: Path, form: str) -> None:
    for index, name in enumerate(("b.png", "deep/a.png", "unnamed.png")):
        put(name, draw(seed=index))
    rows = [
        {"file_name": "deep/a.png", "edit_prompt": " make it\n warm "},
        {"file_name": "b.png", "edit_prompt": "NA"},
        {"file_name": "b.png", "edit_prompt": "again"},
        {"file_name": "gone.png", "edit_prompt": "x"},
    ]
    write_table(tmp_path / f"metadata.{form}", rows)
    source = open_source(tmp_path)
    assert (source.name, source.kind) == (tmp_path.name, "table")
    assert prompts_of(source) == {"b.png": "NA", "deep/a.png": "make it warm"}
    assert source.skipped == {
        "named twice in the table": 1,
        "named in the table, not on the disk": 1,
        "not named in the table": 1,
    }
    np.testing.assert_array_equal(source.items[1].read(), draw(seed=1))
    assert source.items[0].stamp


@pytest.mark.parametrize("form", FORMS)
def test_paths_are_relative_to_the_table(put, tmp_path: Path, form: str) -> None:
    for name in ("one/photos/a.png", "two/a.png", "shared/b.png"):
        put(name)
    write_table(tmp_path / "one" / f"metadata.{form}", [{"file_name": "photos/a.png", "edit_prompt": "p"}])
    rows = [{"file_name": "./a.png", "edit_prompt": "q"}, {"file_name": "../shared/b.png", "edit_prompt": "r"}]
    write_table(tmp_path / "two" / f"metadata.{form}", rows)
    assert prompts_of(open_source(tmp_path)) == {"one/photos/a.png": "p", "shared/b.png": "r", "two/a.png": "q"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["suffix", "argument", "option", "file", "table:file"])
def test_any_column_by_name(put, tmp_path: Path, form: str, how: str) -> None:
    put("a.png")
    name = "metadata" if how in ("suffix", "argument", "option") else "mine"
    table = write_table(tmp_path / f"{name}.{form}", [{"my photo": "a.png", "cap&tion": "warm", "edit_prompt": "x"}])
    columns = {"image": "my photo", "prompt": "cap&tion"}
    text = "#image=my photo&prompt=cap%26tion"
    if how == "argument":
        source = open_source(tmp_path, columns=columns)
    elif how == "option":
        source = open_source(with_columns(str(tmp_path), [f"{name}={column}" for name, column in columns.items()]))
    else:
        source = open_source({"suffix": f"{tmp_path}", "file": f"{table}", "table:file": f"table:{table}"}[how] + text)
    assert prompts_of(source) == {"a.png": "warm"}
    assert source.kind == "table"


@pytest.mark.parametrize("column", ["image", "prompt"])
def test_one_column_by_name_is_enough(put, tmp_path: Path, column: str) -> None:
    put("a.png")
    usual = {"image": "file_name", "prompt": "edit_prompt"}
    named = {**usual, column: "mine"}
    write_table(tmp_path / "metadata.csv", [{named["image"]: "a.png", named["prompt"]: "warm"}])
    assert prompts_of(open_source(f"{tmp_path}#{column}=mine")) == {"a.png": "warm"}


@pytest.mark.parametrize(
    ("spec", "columns", "whole"),
    [
        ("photos", [], "photos"),
        ("photos", ["image=a"], "photos#image=a"),
        ("hf:owner/name", ["prompt=50% & #1=x", "image=é"], "hf:owner/name#prompt=50%25 %26 %231=x&image=é"),
        ("table:a.csv#image=b%23&prompt=c", ["prompt=d"], "table:a.csv#image=b%23&prompt=d"),
        ("a#b", ["image=c"], "a#b#image=c"),
    ],
)
def test_columns_as_options_are_those_of_the_spec(spec: str, columns: list[str], whole: str) -> None:
    assert with_columns(spec, columns) == whole


@pytest.mark.parametrize("column", ["images=a", "image", "image=", "=a", "", "\x1b[2J" + "x" * 2000])
def test_a_column_of_another_form_is_one_line(column: str) -> None:
    with pytest.raises(OptionsError, match="--column .*: accepted: image=COLUMN or prompt=COLUMN") as caught:
        with_columns("photos", [column])
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200
    with pytest.raises(OptionsError, match="--column image is given twice"):
        with_columns("photos", ["image=a", "image=b"])


def test_a_path_with_the_mark_is_a_path(put, tmp_path: Path) -> None:
    put("a#image=b/a.png")
    assert open_source(tmp_path / "a#image=b").kind == "folder"
    put("c#d/a.png")
    assert open_source(tmp_path / "c#d").kind == "folder"


@pytest.mark.parametrize("empty", ["", "  ", "\n\t"])
@pytest.mark.parametrize("form", FORMS)
def test_a_row_without_an_instruction_gets_a_drawn_one(put, tmp_path: Path, form: str, empty: str) -> None:
    put("a.png")
    put("b.png")
    table = tmp_path / f"metadata.{form}"
    write_table(table, [{"file_name": "a.png", "edit_prompt": empty}, {"file_name": "b.png", "edit_prompt": "warm"}])
    assert prompts_of(open_source(tmp_path)) == {"a.png": drawn_prompt("a.png"), "b.png": "warm"}
    write_table(table, [{"file_name": "a.png", "edit_prompt": empty}, {"file_name": "b.png", "edit_prompt": empty}])
    assert open_source(tmp_path).prompts is None
    with pytest.raises(DataError, match="no text in column 'edit_prompt'"):
        open_source(f"{tmp_path}#prompt=edit_prompt")


@pytest.mark.parametrize("form", FORMS)
def test_long_first_rows(put, tmp_path: Path, form: str) -> None:
    put("a.png")
    row = {"notes": "x" * 200_000, "edit_prompt": "warm " * 10_000 + "end", "file_name": "a.png"}
    write_table(tmp_path / f"metadata.{form}", [row])
    assert prompts_of(open_source(tmp_path))["a.png"].endswith("warm end")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", ["../out.png", "deep/../../out.png", "/etc/passwd", "{outside}/out.png", ".", ".."])
def test_a_path_that_leads_out_is_skipped(put, tmp_path: Path, form: str, path: str) -> None:
    put("out.png")
    put("set/a.png")
    rows = [
        {"file_name": path.format(outside=tmp_path), "edit_prompt": "x"},
        {"file_name": "a.png", "edit_prompt": "x"},
    ]
    write_table(tmp_path / "set" / f"metadata.{form}", rows)
    source = open_source(tmp_path / "set")
    assert [item.key for item in source.items] == ["a.png"]
    assert source.skipped == {"outside the folder of the source": 1}


@pytest.mark.parametrize(
    "path", ["a\0b.png", "\udcff.png", "\ud800", "x" * 5000, 7, None, ["a.png"], {"path": "a.png"}]
)
def test_a_path_that_is_none(put, tmp_path: Path, path) -> None:
    put("a.png")
    rows = [{"file_name": path, "edit_prompt": "x"}, {"file_name": "a.png", "edit_prompt": "x"}]
    write_table(tmp_path / "metadata.jsonl", rows)
    source = open_source(tmp_path)
    assert [item.key for item in source.items] == ["a.png"]
    assert sum(source.skipped.values()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_path_that_is_there_and_is_no_text(put, tmp_path: Path) -> None:
    put("a.png")
    os.rename(put("b.png"), os.fsencode(tmp_path) + b"/\xff.png")
    write_table(tmp_path / "t.jsonl", [{"file_name": name, "edit_prompt": ""} for name in ("\udcff.png", "a.png")])
    assert [item.key for item in open_source(tmp_path / "t.jsonl").items] == ["a.png"]


DAMAGED = {
    "csv": [
        b"",
        b"\xff\xfe\0a\0",
        b'file_name,edit_prompt\n"a.png,x\n',
        b"file_name,edit_prompt\na,b,c\nd\x1b[2J\n,,,,\n",
    ],
    "jsonl": [b"", b"[" * 100_000, b'{"file_name": "a.png"}\n{"file_name"', b"7\n", b'{"a":' * 50_000, b"\xff\n"],
    "parquet": [b"", b"PAR1", b"PAR1" + b"\0" * 64 + b"\xff\xff\xff\x7fPAR1", b"junk" * 99],
}


@pytest.mark.parametrize(("form", "content"), [(form, content) for form in DAMAGED for content in DAMAGED[form]])
def test_damaged_tables_are_one_line(put, tmp_path: Path, form: str, content: bytes) -> None:
    put("a.png")
    table = tmp_path / f"metadata.{form}"
    table.write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_source(f"table:{table}")
    assert str(caught.value).isprintable() and len(str(caught.value)) < len(str(table)) + 250
    if not {"file_name", "edit_prompt"} <= set(column_names(table)):
        assert open_source(tmp_path).kind == "folder"


@pytest.mark.parametrize("form", FORMS)
def test_absurdly_large_tables_are_refused_unread(put, tmp_path: Path, form: str, monkeypatch) -> None:
    put("a.png")
    table = write_table(tmp_path / f"metadata.{form}", [{"file_name": "a.png", "edit_prompt": "x"}] * 3)
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 8)
    with pytest.raises(DataError, match="more than 0 MiB"):
        open_source(table)


def test_a_table_of_very_many_packed_rows_is_refused(put, tmp_path: Path, monkeypatch) -> None:
    put("a.png")
    table = write_table(tmp_path / "metadata.parquet", [{"file_name": "a.png", "edit_prompt": "x"}] * 3)
    monkeypatch.setattr(tables, "MAX_ROWS", 2)
    with pytest.raises(DataError, match="3 rows; accepted: at most 2"):
        open_source(table)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("#image=nothing", "no table here has 'nothing'"),
        ("/metadata.csv#image=nothing", "no column 'nothing'; it has 'file_name', 'edit_prompt"),
        ("/metadata.csv#prompt=nothing", "no column 'nothing'"),
        ("#color=x", "column 'color=x'; accepted: #image=COLUMN"),
        ("#image=", "column 'image='; accepted"),
        ("/a.png#image=x", "is a file"),
    ],
)
def test_columns_that_are_not_there(put, tmp_path: Path, spec: str, message: str) -> None:
    put("a.png")
    write_table(tmp_path / "metadata.csv", [{"file_name": "a.png", "edit_prompt\x1b[2J" + "y" * 999: "x"}])
    with pytest.raises(DataError, match=message.replace("[", r"\[")) as caught:
        open_source(f"{tmp_path}{spec}")
    assert str(caught.value).isprintable() and len(str(caught.value)) < len(str(tmp_path)) + 300


@pytest.mark.parametrize("kind", ["folder", "lfw", "ffhq", "imdb-wiki"])
def test_columns_go_with_tables_alone(put, tmp_path: Path, kind: str) -> None:
    put("a.png")
    with pytest.raises(DataError, match=f"kind {kind} has no columns"):
        open_source(f"{kind}:{tmp_path}#image=x")


def test_no_table_and_no_photo(put, tmp_path: Path) -> None:
    put("a.png")
    with pytest.raises(DataError, match=r"no table here; accepted: metadata\.jsonl"):
        open_source(f"table:{tmp_path}")
    with pytest.raises(DataError, match="not a table; accepted: files ending in"):
        open_source(f"table:{tmp_path / 'a.png'}")
    table = write_table(tmp_path / "t.csv", [{"file_name": "gone.png", "edit_prompt": "x"}])
    with pytest.raises(DataError, match=r"names no photo \(1 named in the table, not on the disk\)"):
        open_source(table)


def test_column_names_of_what_is_no_table(tmp_path: Path) -> None:
    for name in ("gone.csv", "gone.parquet", "gone.jsonl", "."):
        assert column_names(tmp_path / name) == ()
    (tmp_path / "a.csv").write_text('﻿"file_name", edit_prompt\n')
    assert column_names(tmp_path / "a.csv") == ("file_name", "edit_prompt")


@pytest.mark.parametrize(
    "text",
    [
        "file_name,edit_prompt,\na.png,warm,\n",
        "file_name,edit_prompt\na.png,warm,\n",
        "file_name, edit_prompt,file_name \na.png,warm,b\n",
        '"file_name","edit_prompt"\r\n"a.png","warm"\r\n\r\n',
        "\ufefffile_name,edit_prompt\na.png,warm\n",
    ],
)
def test_csv_as_editors_write_it(put, tmp_path: Path, text: str) -> None:
    put("a.png")
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8", newline="")
    assert prompts_of(open_source(tmp_path)) == {"a.png": "warm"}


@pytest.mark.skipif(os.name == "nt", reason="a backslash parts folders there")
def test_captions_alone_leave_a_folder_a_folder(put, tmp_path: Path) -> None:
    put("a.png")
    write_table(tmp_path / "metadata.csv", [{"file_name": "a.png", "caption": "a cat"}])
    assert (open_source(tmp_path).kind, open_source(tmp_path).prompts) == ("folder", None)


@pytest.mark.parametrize("form", FORMS)
def test_a_pipe_is_no_table(put, tmp_path: Path, form: str) -> None:
    """Opening one would wait for ever."""
    put("photos/a.png")
    os.mkfifo(tmp_path / "photos" / f"metadata.{form}")
    assert column_names(tmp_path / "photos" / f"metadata.{form}") == ()
    with pytest.raises(DataError, match="cannot be read as a table"):
        tables.open_photo_tables(tmp_path, [tmp_path / "photos" / f"metadata.{form}"], {})


@pytest.mark.parametrize("name", ["data.arrow", "state.json", "sub/train.parquet"])
def test_a_pipe_is_no_file_of_a_data_set(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is no file"):
        open_source(f"hf:{tmp_path}")


def test_a_row_of_any_length_is_not_read(put, tmp_path: Path) -> None:
    """A line of empty lists takes twenty times its length in memory."""
    put("a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}\n{"x": [' + "[]," * 500_000 + "[]]}\n")
    with pytest.raises(DataError, match="line 2 is longer than 1 MiB"):
        tables.open_photo_tables(tmp_path, [tmp_path / "metadata.jsonl"], {})
