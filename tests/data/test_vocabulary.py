import numpy as np
import pyarrow as pa

from recsys.data.vocabulary import Vocabulary, VocabularyBuilder


def text(*ids: object) -> np.ndarray:
    return np.array(ids, object)


def test_the_code_of_an_id_is_its_position_and_minus_one_where_it_is_unknown():
    vocabulary = Vocabulary(text("007", "7", "bea"))
    codes = vocabulary.codes(text("7", "bea", "07", "", None, np.nan, 7))
    assert codes.tolist() == [1, 2, -1, -1, -1, -1, -1]
    assert codes.dtype == np.int32
    assert len(vocabulary) == 3
    assert vocabulary.codes(text()).tolist() == []


def test_a_builder_codes_ids_as_they_come_and_sorts_those_used_at_the_end():
    builder = VocabularyBuilder()
    assert builder.encode(pa.array(["b", " a ", None, "b"]).dictionary_encode()).tolist() == [0, 1, -1, 0]
    assert builder.encode(pa.array(["c", "a", " "]).dictionary_encode()).tolist() == [2, 1, -1]
    assert len(builder) == 3
    vocabulary, codes = builder.finish(np.array([True, True, False]))
    assert vocabulary.ids.tolist() == ["a", "b"]
    assert codes.tolist() == [1, 0, -1]
