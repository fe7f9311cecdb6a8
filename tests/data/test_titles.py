import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.titles import read_titles
from recsys.errors import InputError


def test_titles_are_read_from_text_of_any_usual_separator(write):
    assert read_titles(write('item_id,title\n1,"Heat, again"\n 2 ,  Two\n\n')) == {"1": "Heat, again", "2": "Two"}
    assert read_titles(write("title;year;item_id\nÉtoile;1999;é\n")) == {"é": "Étoile"}
    assert read_titles(write(f"\ufeffitem_id\ttitle\n1\t{'x' * 900}\n"))["1"] == "x" * 300


def test_titles_are_read_from_parquet(tmp_path):
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": [1, 2], "title": ["One", None]}), path)
    assert read_titles(path) == {"1": "One"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("item_id,name\n1,x\n", r"ratings.csv: column 'title' is needed, got item_id, name"),
        ("item_id,title\n1,a\n2\n", r"ratings.csv:3: 2 columns are needed, as in the first line, got 1"),
        (b"item_id,title\n1,\xff\n", r"ratings.csv: a table of item_id and title is needed, but 'utf-8'"),
        ("", r"column 'item_id' is needed"),
    ],
)
def test_a_table_that_is_none_is_told(write, content, told):
    with pytest.raises(InputError, match=told):
        read_titles(write(content))
    with pytest.raises(InputError, match="No such file"):
        read_titles(write("").with_name("nothing"))
