import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.engine.names import is_escaped, key_of, name_of

# Percent signs, hex digits and bytes that are no UTF-8, in every neighbourhood.
NAMES = st.lists(
    st.sampled_from(
        [b"%", b"25", b"%25", b"%FF", b"%ff", b"\xff", b"\xed\xa0\x80", "é".encode(), b"a", b"/", b"."]
    ),
    min_size=1,
    max_size=8,
).map(b"".join) | st.binary(min_size=1, max_size=12)


@settings(deadline=None, max_examples=500)
@given(NAMES)
def test_every_name_comes_back_from_its_key(name):
    key = key_of(name)
    key.encode("utf-8")
    assert name_of(key) == name


@settings(deadline=None, max_examples=300)
@given(NAMES, NAMES)
def test_two_names_never_share_a_key(a, b):
    assert (key_of(a) == key_of(b)) == (a == b)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (b"a b.png", "a b.png"),
        (b"a%20b.png", "a%20b.png"),
        (b"100%.png", "100%.png"),
        ("é/日.png".encode(), "é/日.png"),
        (b"a\xff%.png", "a%FF%25.png"),
        (b"a%FF.png", "a%25FF.png"),
    ],
)
def test_keys_are_pinned(name, key):
    assert key_of(name) == key
    assert is_escaped(key) == (key.encode() != name)
