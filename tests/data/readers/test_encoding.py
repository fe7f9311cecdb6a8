"""Files in other encodings than UTF-8, and with decimal commas."""

import gzip

import pytest

from recsys.data.readers.dialect import find_dialect
from recsys.data.readers.source import TextFormat, WeightedNames
from tests.support.ratings_files import ROWS, TEXT, message, read_ratings, rows

EUROPEAN = "user_id;item_id;rating\nMüller;Käse;4,5\nMüller;Öl;3\nJosé;Öl;,5\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("zipped", [False, True])
def test_an_encoding_that_its_mark_names_is_found(write, encoding, zipped):
    content = TEXT.encode(encoding)
    path = write(gzip.compress(content, mtime=0) if zipped else content, "r.csv.gz" if zipped else "r.csv")
    ratings = read_ratings(path)
    assert rows(ratings) == ROWS
    assert [note.partition(" is ")[2] for note in ratings.notes] == ["UTF-16, by the mark at its beginning"] * (
        encoding == "utf-16"
    )


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "iso8859-15", "UTF8"])
def test_an_encoding_by_parameter(write, encoding):
    ratings = read_ratings(write(EUROPEAN.encode(encoding)), encoding=encoding)
    assert ratings.user_ids.tolist() == ["José", "Müller"]
    assert ratings.item_ids.tolist() == ["Käse", "Öl"]


def test_long_text_is_recoded_across_chunks(write):
    lines = "".join(f"ü{row},i{row % 7},{row % 5 + 1}\n" for row in range(120_000))
    ratings = read_ratings(write(f"user_id,item_id,rating\n{lines}".encode("utf-16")))
    assert ratings.rows_read == 120_000
    assert {user[0] for user in ratings.user_ids} == {"ü"}


def test_another_encoding_than_the_files_is_told(write):
    assert "save the file as UTF-8, or pass its own encoding, such as -P encoding=latin-1" in message(
        write(EUROPEAN.encode("latin-1"))
    )
    said = message(write(EUROPEAN.encode("latin-1")), encoding="utf-16")
    assert "ratings.csv: expected utf-16 text, and from line 1 on it is none" in said
    for name in ("klingon", "hex"):
        assert "parameter 'encoding': auto or an encoding such as" in message(write(TEXT), encoding=name)


def test_a_decimal_comma_is_found_where_no_rating_has_a_point(write):
    ratings = read_ratings(write(EUROPEAN))
    assert sorted(ratings.values.tolist()) == [0.5, 3.0, 4.5]
    assert ratings.notes[0].endswith("ratings have a decimal comma, none has a point")
    assert read_ratings(write("a;b;4,5\nc;d;3,5\n")).values.tolist() == [4.5, 3.5]  # without a header, too


def test_a_decimal_comma_of_weights_is_told_as_theirs(write):
    text = "user_id;item_id;grams\nu;i;4,5\nu;j;2\n"
    columns = WeightedNames("user_id", "item_id", "grams")
    (note,) = find_dialect(write(text), columns, TextFormat()).notes
    assert note.endswith("ratings.csv: weights have a decimal comma, none has a point")


def test_a_decimal_comma_by_parameter_reads_text_columns_too(write):
    text = "user_id;item_id;rating;timestamp\nu;i;4,5;2024-01-01\n \nu;j;2;2024-01-02T10:00+01:00\n"
    assert read_ratings(write(text), decimal="comma").values.tolist() == [4.5, 2.0]
    assert "write 4.5, or pass -P decimal=comma where commas" in message(write(text), decimal="point")
    said = message(write('user_id,item_id,rating\nu,i,"4,5"\n'), decimal="comma")
    assert "the decimal comma is what separates the columns, too" in said
