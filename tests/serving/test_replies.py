import pytest

from recsys.serving.replies import Replies

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Transport:
    def __init__(self):
        self.done = []

    def write(self, data):
        self.done.append(data)

    def close(self):
        self.done.append("closed")

    def is_closing(self):
        return "closed" in self.done


@pytest.fixture
def transport():
    return Transport()


@pytest.fixture
def replies(transport):
    return Replies(transport)


def test_a_head_is_sent_with_its_body(replies, transport):
    for body in (b"[]", b"HTTP/1.1 is no head here", b""):
        replies.write(HEAD)
        replies.write(body)
    assert transport.done == [HEAD + b"[]", HEAD + b"HTTP/1.1 is no head here", HEAD]


def test_a_body_in_parts_goes_on_as_it_comes(replies, transport):
    for part in (HEAD, b"1\r\n[\r\n", b"1\r\n]\r\n"):
        replies.write(part)
    assert transport.done == [HEAD + b"1\r\n[\r\n", b"1\r\n]\r\n"]


def test_a_client_that_waits_to_send_its_body_is_told_at_once(replies, transport):
    replies.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert transport.done == [b"HTTP/1.1 100 Continue\r\n\r\n"]


def test_a_head_without_a_body_is_sent_when_the_reply_is_complete_or_the_connection_closed(replies, transport):
    replies.write(HEAD)
    replies.flush()
    replies.flush()
    assert transport.done == [HEAD]
    assert not replies.is_closing()
    replies.write(HEAD)
    replies.close()
    assert transport.done == [HEAD, HEAD, "closed"]
    assert replies.is_closing()


def test_a_reply_that_is_whole_goes_behind_what_is_kept(replies, transport):
    replies.write_whole(HEAD + b"[]")
    replies.write(HEAD)
    replies.write_whole(HEAD + b"[]")
    assert transport.done == [HEAD + b"[]", HEAD + HEAD + b"[]"]
