import bz2
import gzip
import lzma

import numpy as np
import pytest

from recsys.data.readers import delimited, dialect, mistakes
from recsys.data.readers.source import ColumnNames
from recsys.errors import InputError
from tests.support.ratings_files import HEADER, ROWS, TEXT, message, read_ratings, rows


class TestFormats:
    def test_arrays(self, write) -> None:
        ratings = read_ratings(write(TEXT))
        assert len(ratings) == ratings.rows_read == 3
        assert ratings.users.tolist() == [0, 1, 0]
        assert ratings.items.tolist() == [0, 0, 1]
        assert ratings.user_ids.tolist() == ["u1", "u2"]
        assert ratings.item_ids.tolist() == ["i1", "i2"]
        assert (ratings.users.dtype, ratings.items.dtype) == (np.int32, np.int32)
        assert ratings.values.tolist() == [5.0, 3.5, 1.0]
        assert ratings.timestamps is not None
        assert ratings.timestamps.tolist() == [10.0, 20.0, 30.0]
        assert list(ratings.dropped.items()) == [
            ("missing_value", 0),
            ("below_min_rating", 0),
            ("repeated_pair", 0),
        ]
        assert ratings.notes == ()

    @pytest.mark.parametrize("separator", [",", "\t", ";", "|", "::"])
    @pytest.mark.parametrize("zipped", [False, True])
    def test_separator_is_found(self, write, separator, zipped) -> None:
        content = TEXT.replace(",", separator).encode()
        path = write(gzip.compress(content) if zipped else content, "ratings.csv.gz" if zipped else "r.dat")
        assert rows(read_ratings(path)) == ROWS

    @pytest.mark.parametrize(
        ("given", "real"),
        [("tab", "\t"), ("\\t", "\t"), ("comma", ","), ("<>", "<>"), ("§", "§"), (" ", " "), (":::", ":::")],
    )
    def test_separator_is_given(self, write, given, real) -> None:
        assert rows(read_ratings(write(TEXT.replace(",", real)), separator=given)) == ROWS

    def test_gzip_is_known_by_its_content_and_may_have_parts(self, write) -> None:
        half = len(TEXT) // 2
        content = gzip.compress(TEXT[:half].encode()) + gzip.compress(TEXT[half:].encode())
        assert rows(read_ratings(write(content, "ratings.csv"))) == ROWS

    @pytest.mark.parametrize(
        "text",
        [
            "\ufeff" + TEXT,
            TEXT.replace("\n", "\r\n"),
            TEXT.replace("\n", "\r"),
            TEXT.rstrip("\n"),
            TEXT.replace("\n", "\n\n"),
            "\n  \n" + TEXT.replace("\n", "\n  \n"),
            "\ufeffsep=,\n" + TEXT,
            '"sep=;"\r\n\r\n' + TEXT.replace(",", ";"),
            TEXT.replace(",", " , "),
            TEXT.replace("u1", '"u1"').replace("rating", '"rating"').replace("3.5", '"3.5"'),
            TEXT.replace("\n", ",\n"),
            TEXT.replace("\n", ",,\n"),
            TEXT.replace(",", ",comment,", 1).replace("u1,", "u1,\udce9,").replace("u2,", "u2,x,"),
        ],
        ids=[
            "byte order mark",
            "CRLF",
            "CR",
            "no end of line at the end",
            "blank lines",
            "lines of blanks",
            "Excel's line of the separator",
            "the same in quotes",
            "blanks around values",
            "quotes",
            "separator at every end",
            "two separators at every end",
            "an unneeded column that is not UTF-8",
        ],
    )
    def test_variants_of_the_same_file(self, write, text) -> None:
        assert rows(read_ratings(write(text.encode(errors="surrogateescape")))) == ROWS

    def test_columns_in_any_order_under_any_name(self, write) -> None:
        path = write("when;stars;note;what;who\n10;5;;i1;u1\n20;3.5;;i1;u2\n30;1;;i2;u1\n")
        assert rows(read_ratings(path, ColumnNames("who", "what", "stars", "when"))) == ROWS

    @pytest.mark.parametrize("separator", [",", "::"])
    def test_quoted_separators_quotes_and_line_breaks_belong_to_the_id(self, write, separator) -> None:
        text = f'{HEADER}\n"a,::\n""b""",i1,5,10\n'.replace(",", separator)
        assert rows(read_ratings(write(text)))[0][0] == f'a{separator}::\n"b"'

    @pytest.mark.parametrize("separator", [",", "::"])
    def test_block_borders(self, write, monkeypatch, separator) -> None:
        monkeypatch.setattr(delimited, "_BLOCK", 64)
        lines = [f"user{n},item{n},{n % 5 + 1},{n}" for n in range(500)]
        lines[250] = f'user250,"{"x" * 500}\ny",1,250'  # longer than a block, and breaks a line
        ratings = read_ratings(write("\n".join([HEADER, *lines]).replace(",", separator)))
        assert [row[0] for row in rows(ratings)] == [f"user{n}" for n in range(500)]
        assert ratings.values.tolist() == [n % 5 + 1 for n in range(250)] + [1] + [n % 5 + 1 for n in range(251, 500)]

    @pytest.mark.parametrize("user", ["x" * 20_000, '"' + "x\n" * 10_000 + '"'], ids=["line", "quotes"])
    def test_a_row_that_is_too_long_is_named(self, write, monkeypatch, user) -> None:
        for module in (delimited, dialect, mistakes):
            monkeypatch.setattr(module, "LONGEST_ROW", 1 << 12)
        monkeypatch.setattr(delimited, "_BLOCK", 64)
        with pytest.raises(InputError, match=r"csv:3: expected rows of at most 0 MB, got a longer one; close its quo"):
            read_ratings(write(f"{HEADER}\nu,i,1,1\n{user},i,1,1\n"))

    def test_no_separator_is_cut_by_the_chunks_it_is_read_in(self, write) -> None:
        # 11 bytes a line, so over the 4 MiB of a chunk its border falls on every kind of place.
        lines = "".join(f"{n % 1000:03d}::{n // 1000:03d}::1\n" for n in range(800_000))
        ratings = read_ratings(write("user_id::item_id::rating\n" + lines))
        assert len(ratings) == 800_000
        assert (len(ratings.user_ids), len(ratings.item_ids)) == (1000, 800)


class TestNoHeader:
    @pytest.mark.parametrize(
        "text", ["1::2::3::4\n5::6::1::8\n", "\ufeff1\t2\t3\t4\n5\t6\t1\t8\n", "1,2,3,4\n\n5,6,1,8"]
    )
    def test_read_by_position(self, write, text) -> None:
        ratings = read_ratings(write(text))
        assert rows(ratings) == [("1", "2", 3.0, 4.0), ("5", "6", 1.0, 8.0)]
        assert len(ratings.notes) == 1
        assert "no header" in ratings.notes[0]
        assert "user, item, rating, timestamp" in ratings.notes[0]

    def test_without_timestamps_and_with_more_columns(self, write) -> None:
        assert rows(read_ratings(write("1,2,3\n"))) == [("1", "2", 3.0)]
        assert rows(read_ratings(write("1,2,3,4,x\n"))) == [("1", "2", 3.0, 4.0)]

    def test_first_line_that_is_no_row_is_a_header(self, write) -> None:
        text = message(write("a,b,c\n1,2,3\n"))
        assert "ratings.csv:1: needed column 'user_id' is missing, the columns are 'a, b, c'" in text
        assert "-P user_column=" in text

    def test_named_columns_need_a_header(self, write) -> None:
        text = message(write("7,8,3,4\n"), ColumnNames(user="who"))
        assert "no header" in text
        assert "'7, 8, 3, 4'" in text
        assert "user_column" in text

    def test_line_numbers(self, write) -> None:
        assert "ratings.csv:2: column 'rating'" in message(write("1,2,3\n1,2,x\n"))


class TestErrors:
    def test_no_such_file(self, tmp_path) -> None:
        text = message(tmp_path / "absent.csv")
        assert f"{tmp_path / 'absent.csv'}: no such file in {tmp_path}" in text

    def test_empty_directory(self, tmp_path) -> None:
        assert f"{tmp_path}: the folder has no ratings files in it" in message(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [b"", b"\n \n", gzip.compress(b"", mtime=0), b"\xef\xbb\xbf"],
        ids=["no byte", "blank lines", "gzip of nothing", "byte order mark"],
    )
    def test_empty(self, write, content) -> None:
        assert "the file is empty" in message(write(content))

    @pytest.mark.parametrize("content", [HEADER, HEADER + "\n", HEADER + "\n\n  \n", HEADER.replace(",", "::")])
    def test_header_only(self, write, content) -> None:
        assert "a header but no rows" in message(write(content))

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (TEXT.encode("utf-16-le"), "got a NUL byte"),
            (b"PK\x03\x04" + bytes(20), "zip archive or spreadsheet"),
            (bz2.compress(TEXT.encode()), "ratings.csv: expected text, plain or gzipped, got a file packed by bzip2"),
            (lzma.compress(TEXT.encode()), "got a file packed by xz; unpack it, or use gzip for it"),
            (bytes.fromhex("28b52ffd") + bytes(20), "got a file packed by zstd"),
            (b"\x7fELF\n\x00\x00", "ratings.csv:2: expected text, got a NUL byte"),
            (
                TEXT.replace("u2", "\xe9").encode("latin-1"),
                "ratings.csv:3: expected UTF-8 text, got byte 0xe9",
            ),
            (TEXT.replace("item", "\xe9").encode("latin-1"), "ratings.csv:1: expected UTF-8 text"),
        ],
    )
    def test_not_text(self, write, content, said) -> None:
        assert said in message(write(content))

    def test_nul_far_into_the_file(self, write) -> None:
        lines = [f"u{n},i,1,{n}" for n in range(100_000)]
        lines[90_000] = "u\0,i,1,1"
        assert "ratings.csv:90002: the user id holds a NUL byte" in message(write("\n".join([HEADER, *lines])))

    @pytest.mark.parametrize(
        ("real", "given", "word"),
        [(";", "comma", "';'"), (",", "tab", "comma"), ("\t", ",", "tab"), ("::", "|", "'::'")],
    )
    def test_wrong_separator(self, write, real, given, word) -> None:
        text = message(write(TEXT.replace(",", real)), separator=given)
        assert "wrong separator" in text
        assert f"it looks separated by {word}: pass -P separator={word}" in text

    def test_one_column(self, write) -> None:
        text = message(write(TEXT.replace(",", "~")))
        assert "the header has one column" in text
        assert "-P separator=" in text

    @pytest.mark.parametrize("separator", ["", "\n", '"'])
    def test_impossible_separator(self, write, separator) -> None:
        assert "separator: expected" in message(write(TEXT), separator=separator)

    @pytest.mark.parametrize("parameter", ["user", "item", "rating", "timestamp"])
    def test_missing_column(self, write, write_parquet, parameter) -> None:
        columns = ColumnNames(**{parameter: "elsewhere"})
        for path in (write(TEXT), write_parquet()):
            text = message(path, columns)
            assert "needed column 'elsewhere' is missing" in text
            assert "'user_id, item_id, rating, timestamp'" in text
            assert f"-P {parameter}_column=" in text

    def test_repeated_column_names(self, write) -> None:
        assert "column 'rating' is there 2 times" in message(write("user_id,item_id,rating,rating\n1,2,3,4\n"))
        path = write("user_id,item_id,rating,other,other\n1,2,3,4,5\n")
        assert rows(read_ratings(path)) == [("1", "2", 3.0)]

    def test_two_parameters_for_one_column(self, write) -> None:
        text = message(write(TEXT), ColumnNames(item="user_id"))
        assert "user_column and item_column both name column 'user_id'" in text

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("u2,i1,3.5", "got 3 in 'u2,i1,3.5'; correct or remove the row"),
            ("u2,i1,3.5,20,", "got 5 in 'u2,i1,3.5,20,'; remove the separator at the end of the line"),
            ("u2,i,1,3.5,20", "got 5 in 'u2,i,1,3.5,20'; put quotes around"),
            ("u" * 100, f"got 1 in '{'u' * 59}…'"),
        ],
    )
    @pytest.mark.parametrize("separator", [",", "::"])
    def test_wrong_number_of_fields(self, write, line, said, separator) -> None:
        text = TEXT.replace("\n", "\n\n", 1).replace("u2,i1,3.5,20", line).replace(",", separator)
        said = said.replace(",", separator)
        assert f"ratings.csv:4: expected 4 fields, {said}" in message(write(text))

    @pytest.mark.filterwarnings("error")  # Arrow would print a traceback beside the message
    def test_wrong_number_of_fields_in_a_row_that_is_not_utf8(self, write) -> None:
        text = f"{HEADER}\nu1,i1,5,10\n  \n\xe9\n"
        assert "ratings.csv:4: expected 4 fields, got 1" in message(write(text.encode("latin-1")))

    def test_rows_after_a_line_break_in_quotes(self, write) -> None:
        text = f'{HEADER}\n"a\nb",i1,5,1\nu,i2,x,1\n'
        assert "ratings.csv:4: column 'rating'" in message(write(text))

    def test_separator_stand_in_is_refused(self, write) -> None:
        assert "control character 0x1f" in message(write(TEXT.replace(",", "::").replace("u2", "u\x1f2")))

    @pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b[:30] + b"\0\0\0\0" + b[34:], lambda b: b[:4]])
    def test_broken_gzip(self, write, damage) -> None:
        content = gzip.compress((TEXT + "".join(f"x{n},y,1,1\n" for n in range(999))).encode())
        assert "broken gzip file" in message(write(damage(content), "ratings.csv.gz"))

    def test_gzip_in_name_only(self, write) -> None:
        assert "not a gzip file" in message(write(TEXT, "ratings.csv.gz"))

    def test_endless_field(self, write) -> None:
        assert "ratings.csv:2: expected 4 fields" in message(write(f"{HEADER}\n{'x' * 300_000}\n"))
        assert "the header has one column" in message(write("x" * 300_000))
