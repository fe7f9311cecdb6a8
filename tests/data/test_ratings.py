import csv
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.ratings_files import HEADER, message, read_ratings, rows


class TestValues:
    @pytest.mark.parametrize(
        "name",
        ["007", "7", "NA", "null", "nan", "None", "\\N", "99999999999999999999", "é漢😀", "1.0", "a b", "-"],
    )
    def test_ids_stay_as_written(self, write, name) -> None:
        ratings = read_ratings(write(f"{HEADER}\n{name},{name},5,1\n"))
        assert rows(ratings) == [(name, name, 5.0, 1.0)]

    def test_ids_are_sorted_by_codepoint_and_merged_when_only_blanks_differ(self, write) -> None:
        ratings = read_ratings(write("user_id,item_id,rating\nb,1,1\n é ,2,2\nB,10,3\né,9,4\n"))
        assert ratings.user_ids.tolist() == ["B", "b", "é"]
        assert ratings.item_ids.tolist() == ["1", "10", "2", "9"]
        assert ratings.users.tolist() == [1, 2, 0, 2]

    @given(
        names=st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip),
            min_size=1,
            max_size=8,
            unique_by=str.strip,
        ),
        delimiter=st.sampled_from([",", "\t", ";", "|"]),
    )
    @settings(max_examples=150, deadline=None)
    def test_any_id_survives_csv(self, names, delimiter) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ratings.csv"
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, delimiter=delimiter)
                writer.writerow(["user_id", "item_id", "rating"])
                writer.writerows([name, "i", 1] for name in names)
            ratings = read_ratings(path)
        assert [row[0] for row in rows(ratings)] == [name.strip() for name in names]
        assert ratings.user_ids.tolist() == sorted(name.strip() for name in names)

    @pytest.mark.parametrize("word", ["", " ", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "\\N", " NA "])
    def test_missing_ratings(self, write, word) -> None:
        ratings = read_ratings(write(f"{HEADER}\nu1,i1,{word},1\nu1,i2,4,1\n"))
        assert rows(ratings) == [("u1", "i2", 4.0, 1.0)]
        assert ratings.dropped["missing_value"] == 1

    @pytest.mark.parametrize(("text", "value"), [("4", 4), ("4.25", 4.25), ("1e1", 10), ("+3", 3), (".5", 0.5)])
    def test_numbers(self, write, text, value) -> None:
        assert read_ratings(write(f"user_id,item_id,rating\nu,i,{text}\n")).values.tolist() == [value]

    @pytest.mark.parametrize("text", ["abc", "inf", "-inf", "Infinity", "1_000", "٣", "4 5", "0x1f", "1e999"])
    def test_unusable_rating(self, write, text) -> None:
        said = message(write(f"{HEADER}\nu1,i1,5,1\n\nu1,i2,{text},1\nu1,i3,3,1\n"))
        assert f"ratings.csv:4: column 'rating': expected a number, got '{text}'; correct" in said

    def test_the_first_of_several_is_named(self, write) -> None:
        assert "ratings.csv:3" in message(write("user_id,item_id,rating\nu,i,1\nu,j,b\nu,k,a\nu,l,b\n"))

    def test_long_values_are_shortened(self, write) -> None:
        assert f"got '{'x' * 59}…'; " in message(write(f"{HEADER}\nu1,i1,{'x' * 200},1\n"))

    def test_decimal_comma(self, write) -> None:
        text = message(write("user_id;item_id;rating\nu;i;4,5\nv;i;3.5\n"))  # which is meant is not sure
        assert "got '4,5'" in text
        assert "write 4.5" in text

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("1970-01-02", 86400),
            ("1970-01-01T00:00:01", 1),
            ("1970-01-01 00:00:01.5", 1.5),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1970-01-01T00:01:00Z", 60),
            ("-5", -5),
            ("1.5e9", 1.5e9),
        ],
    )
    def test_timestamps(self, write, text, seconds) -> None:
        ratings = read_ratings(write(f"{HEADER}\nu,i,1,{text}\n"))
        assert rows(ratings) == [("u", "i", 1.0, seconds)]

    def test_absent_or_empty_timestamps(self, write) -> None:
        assert read_ratings(write("user_id,item_id,rating\nu,i,1\n")).timestamps is None
        ratings = read_ratings(write(f"{HEADER}\nu,i,1,\nu,j,1,NA\n"))
        assert ratings.timestamps is None
        assert len(ratings) == 2

    def test_unusable_timestamp(self, write) -> None:
        text = message(write(f"{HEADER}\nu,i,1,2024-05-31\nu,j,1,31.5.2024\n"))
        assert "ratings.csv:3: column 'timestamp': expected a number or a date" in text
        assert "'31.5.2024'" in text
        assert "ratings.csv:2: column 'timestamp'" in message(write(f"{HEADER}\nu,i,1,inf\n"))

    def test_numbers_and_dates_do_not_mix(self, write) -> None:
        text = message(write(f"{HEADER}\nu,h,1,\nu,i,1,2024-05-31\nu,j,1,17\n"))
        assert "ratings.csv:4" in text
        assert "a number in every row or a date in every row, got '17'" in text


class TestCleaning:
    def test_each_reason_in_order(self, write) -> None:
        text = (
            f"{HEADER}\n"
            ",i1,5,1\n"  # missing
            "u1, ,5,1\n"  # missing
            "u1,i1,NA,1\n"  # missing
            "u1,i1,5,\n"  # missing
            "u1,i1,0,9\n"  # below, though newest of its pair
            "u1,i1,3,2\n"
            "u1,i1,4,1\n"  # older
            "u2,i2,2,1\n"
            "u3,i3,-1,1\n"  # below
        )
        ratings = read_ratings(write(text))
        assert rows(ratings) == [("u1", "i1", 3.0, 2.0), ("u2", "i2", 2.0, 1.0)]
        assert ratings.rows_read == 9
        assert ratings.dropped == {"missing_value": 4, "below_min_rating": 2, "repeated_pair": 1}
        assert ratings.user_ids.tolist() == ["u1", "u2"]
        assert ratings.item_ids.tolist() == ["i1", "i2"]

    @pytest.mark.parametrize(
        ("bar", "kept"),
        [("positive", [0.5, 3]), (0.5, [0.5, 3]), (1, [3]), (0, [0, 0.5, 3]), (-2, [-2, 0, 0.5, 3])],
    )
    def test_min_rating(self, write, bar, kept) -> None:
        path = write("user_id,item_id,rating\nu,1,-2\nu,2,0\nu,3,0.5\nu,4,3\n")
        assert read_ratings(path, min_rating=bar).values.tolist() == kept
        assert read_ratings(path, min_rating=None).values.tolist() == [-2, 0, 0.5, 3]

    @pytest.mark.parametrize(
        ("stamps", "kept"), [((1, 3, 2), 2), ((1, 3, 3), 3), ((3, 3, 3), 3), ((9, 1, 1), 1), (None, 3)]
    )
    def test_of_a_repeated_pair_the_newest_stays(self, write, stamps, kept) -> None:
        name = "timestamp" if stamps else "other"
        lines = [f"u,i,{n + 1},{stamps[n] if stamps else 'x'}" for n in range(3)]
        ratings = read_ratings(write("\n".join([f"user_id,item_id,rating,{name}", "u,a,9,1", *lines, "v,i,9,1"])))
        assert ratings.values.tolist() == [9, kept, 9]
        assert ratings.dropped["repeated_pair"] == 2

    def test_repeats_agree_with_a_plain_dictionary(self, write) -> None:
        random = np.random.default_rng(0)
        table = random.integers(1, 30, (2000, 4))
        newest: dict[tuple[int, int], tuple[int, int]] = {}
        for row, (user, item, _, stamp) in enumerate(table.tolist()):
            if (user, item) not in newest or stamp >= newest[user, item][0]:
                newest[user, item] = (stamp, row)
        path = write("\n".join([HEADER, *(",".join(map(str, row)) for row in table.tolist())]))
        ratings = read_ratings(path)
        expected = sorted(row for _, row in newest.values())
        assert ratings.values.tolist() == table[expected, 2].tolist()
        assert ratings.dropped["repeated_pair"] == 2000 - len(expected)

    def test_note_on_scales_below_zero(self, write) -> None:
        def notes(low: int, others: int) -> tuple[str, ...]:
            lines = [f"u,low,{low}", *(f"u,{n},3" for n in range(others))]
            return read_ratings(write("\n".join(["user_id,item_id,rating", *lines]))).notes

        assert notes(-3, 99) == ()  # 1 % is not more than 1 %
        assert notes(0, 9) == ()
        (note,) = notes(-3, 98)
        assert "1 of 99 rows" in note
        assert "-P min_rating=-3" in note

    @pytest.mark.parametrize(
        ("stamps", "told"),
        [
            ((1_700_000_000, 1_700_000_000_001), True),
            ((1_700_000_000_001, "", 1_700_000_000), True),
            ((1_700_000_000, 878_542_960), False),
            ((1_700_000_000_001, 1_600_000_000_000), False),
            ((1, 1_700_000_000), False),  # no clock's, such as a number of the session
            (("1973-10-01", "9999-12-31"), False),
        ],
    )
    def test_timestamps_in_seconds_and_milliseconds_are_told(self, write, stamps, told) -> None:
        lines = [f"u,i{n},3,{stamp}" for n, stamp in enumerate(stamps)]
        notes = read_ratings(write("\n".join([HEADER, *lines]))).notes
        assert ["look like seconds in some rows" in note for note in notes] == [True] * told

    def test_nothing_left(self, write) -> None:
        text = message(write("user_id,item_id,rating\nu,i,0\nu,j,\nu,k,-1\n"))
        assert "none of the 3 rows" in text
        assert "missing_value 1, below_min_rating 2, repeated_pair 0" in text
        assert "-P min_rating=" in text
