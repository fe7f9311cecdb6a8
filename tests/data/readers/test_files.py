import gzip
import os
from pathlib import Path

import pytest

from recsys.data.readers.files import digest_files, estimate_rows, find_files
from tests.support.ratings_files import HEADER, ROWS, TEXT, message, read_ratings, rows

LINES = TEXT.splitlines(keepends=True)


@pytest.fixture
def parts(tmp_path, write, write_parquet):
    """The three rows of TEXT in three files of three kinds, and what is no data beside them."""
    write("".join(LINES[:2]), "part-1.csv")
    write(gzip.compress("".join([LINES[0], LINES[2]]).replace(",", "\t").encode()), "part-2.tsv.gz")
    write_parquet("part-3.parquet", user_id=["u1"], item_id=["i2"], rating=[1.0], timestamp=[30])
    write("", "_SUCCESS")
    write("checksums", ".part-1.csv.crc")
    (tmp_path / "archive").mkdir()
    return tmp_path


def test_a_folder_is_one_input_in_the_order_of_names(parts):
    assert [path.name for path in find_files(parts)] == ["part-1.csv", "part-2.tsv.gz", "part-3.parquet"]
    assert rows(read_ratings(parts)) == ROWS


@pytest.mark.parametrize(
    ("pattern", "found"), [("part-*", ROWS), ("part-[13].*", [ROWS[0], ROWS[2]]), ("*1.csv", ROWS[:1])]
)
def test_a_pattern_is_one_input(parts, pattern, found):
    assert rows(read_ratings(parts / pattern)) == found


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(write):
    assert rows(read_ratings(write(TEXT, "ratings[1].csv"))) == ROWS


def test_of_pairs_that_repeat_across_files_the_newest_stays_and_else_the_last(write, tmp_path):
    write(f"{HEADER}\nu,i,1,5\nu,j,1,5\n", "b.csv")
    write(f"{HEADER}\nu,i,2,4\nu,j,2,5\n", "c.csv")
    ratings = read_ratings(tmp_path)
    assert rows(ratings) == [("u", "i", 1.0, 5.0), ("u", "j", 2.0, 5.0)]
    assert (ratings.rows_read, ratings.dropped["repeated_pair"]) == (4, 2)


def test_columns_stand_in_any_order_in_each_file(write, tmp_path):
    write("".join(LINES[:2]), "a.csv")
    write("rating,extra,user_id,timestamp,item_id\n3.5,x,u2,20,i1\n1,x,u1,30,i2\n", "b.csv")
    assert rows(read_ratings(tmp_path)) == ROWS


def test_files_without_rows_are_passed_over_unless_all_are(write, tmp_path):
    write(HEADER + "\n", "a.csv")
    write("", "b.csv")
    assert "2 files" not in message(tmp_path)
    assert "the file has a header but no rows" in message(tmp_path)
    write(TEXT, "c.csv")
    assert rows(read_ratings(tmp_path)) == ROWS


def test_no_files(write, tmp_path):
    assert f"{tmp_path}: the folder has no ratings files in it" in message(tmp_path)
    (tmp_path / "year=2024").mkdir()
    said = message(tmp_path)
    assert "for those in its folders pass" in said
    write(TEXT, "year=2024/a.csv")
    assert rows(read_ratings(tmp_path / "*" / "*")) == ROWS
    assert "*.txt: no file's name matches; check the pattern" in message(tmp_path / "*.txt")
    write("", "a.csv")
    write("", "b.csv")
    assert "all 2 files are empty" in message(tmp_path)


def test_files_of_different_columns_are_refused_with_both_names(write, write_parquet, tmp_path):
    first = write(TEXT, "a.csv")
    second = write("user_id,item_id,rating\nu,i,1\n", "b.csv")
    assert f"{first} has a column 'timestamp', {second} has none; files of one input need the same" in message(tmp_path)
    second = write("u,i,1,2\n", "b.csv")
    assert f"{first} names its columns in its first line, {second} does not" in message(tmp_path)
    second = write("user,item_id,rating,timestamp\nu,i,1,2\n", "b.csv")
    said = message(tmp_path)
    assert f"{second}:1: needed column 'user_id' is missing" in said
    assert str(first) in said


def test_files_without_a_header_are_read_by_position(write, tmp_path):
    for name, line in zip(("a.csv", "b.csv", "c.csv"), LINES[1:], strict=True):
        write(line, name)
    ratings = read_ratings(tmp_path)
    assert rows(ratings) == ROWS
    assert ratings.notes == (
        f"{tmp_path / 'a.csv'} has no header: its columns are read by position as user, item, rating, timestamp "
        "(and 2 more files)",
    )


def test_a_mistake_is_placed_in_its_own_file(write, tmp_path):
    write(TEXT, "a.csv")
    write(TEXT + "u,i,x,1\n", "b.csv")
    assert f"{tmp_path / 'b.csv'}:5: column 'rating': expected a number, got 'x'" in message(tmp_path)


def test_numbers_in_one_file_and_dates_in_another_do_not_mix(write, tmp_path):
    write(TEXT, "a.csv")
    write(f"{HEADER}\nu,i,1,2024-05-31\n", "b.csv")
    said = message(tmp_path)
    assert "b.csv:2: column 'timestamp': expected a number in every row or a date in every row" in said
    assert "after numbers" in said


def test_the_digest_is_of_the_contents_in_order(write):
    one, other, same = write("1", "a"), write("2", "b"), write("1", "c")
    assert digest_files([one, other]) == digest_files([same, other])
    assert len({digest_files(files) for files in ([one], [one, other], [other, one], [one, one])}) == 4


def test_rows_are_estimated_from_the_length_of_the_first(write, write_parquet):
    lines = HEADER + "\n" + "user-17,item-9,4.5,1000\n" * 50_000
    assert estimate_rows([write(lines)]) == pytest.approx(50_000, rel=0.01)
    assert estimate_rows([write(TEXT)]) == 4
    assert estimate_rows([write_parquet(), write_parquet("b.parquet")]) == 6
    varied = HEADER + "\n" + "".join(f"{k * 7919 % 10007},{k * 31 % 997},{k % 5},{k * k}\n" for k in range(100_000))
    assert estimate_rows([write(gzip.compress(varied.encode()), "r.gz")]) == pytest.approx(100_000, rel=0.3)


def test_what_is_no_regular_file_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert f"{path}: a regular file is needed, got a pipe, a socket or a device" in message(path)


def test_a_pattern_that_runs_in_a_circle_of_links_finds_each_file_once(write, tmp_path):
    path = write(TEXT)
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "copy.csv").symlink_to(path)
    assert len(find_files(tmp_path / "**" / "*.csv")) == 1


@pytest.mark.parametrize("bits", [0x01, 0x10, 0xFF])
@pytest.mark.parametrize("place", [20, 30, 45])
def test_a_damaged_byte_of_a_gzip_is_told(write, place, bits):
    zipped = bytearray(gzip.compress((HEADER + "\n" + LINES[1] * 1000).encode(), mtime=0))
    zipped[place] ^= bits
    assert "broken gzip file" in message(write(bytes(zipped), "ratings.csv.gz"))
