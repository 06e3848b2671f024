# SPDX-License-Identifier: BSD-3-Clause
"""What a pool's caller sees of a thing that cannot be pickled: which argument, element or result it was part of."""

import threading

import pytest

import shoal
from test_error_paths import COMPLAINT, LOCK, Client, closure, path_of

pytestmark = pytest.mark.leakcheck


def count(*args, **kwargs):
    return len(args) + len(kwargs)


def locked(_=None):
    return {"result": [threading.Lock()]}


def test_an_argument_is_named(pool):
    with pytest.raises(TypeError) as info:
        pool.apply(count, (1, Client(LOCK)))
    assert path_of(info.value) == "argument 2 of the task -> attribute '_lock'"
    assert "leave '_lock' out" in str(info.value)


def test_a_keyword_argument_is_named(pool):
    with pytest.raises(TypeError) as info:
        pool.apply_async(count, (), {"client": [LOCK]}).get()
    assert path_of(info.value) == "argument 'client' of the task -> item [0]"


def test_the_function_is_named(pool):
    with pytest.raises(TypeError) as info:
        pool.apply(closure(LOCK))
    assert path_of(info.value) == "closure variable 'client' of function 'train'"


def test_an_element_is_named(pool):
    for call in (pool.map, lambda *args: list(pool.imap(*args))):
        with pytest.raises(TypeError) as info:
            call(count, [1, 2, [LOCK], 3])
        assert path_of(info.value) == "element 2 of the input -> item [0]"


def test_the_function_of_a_map_is_named(pool):
    with pytest.raises(TypeError) as info:
        pool.map(closure(LOCK), [1, 2])
    assert path_of(info.value) == "closure variable 'client' of function 'train'"


def test_a_result_is_named_and_the_hint_is_for_results(pool):
    with pytest.raises(shoal.ResultEncodingError) as info:
        pool.apply(locked)
    text = str(info.value)
    assert f"the result of the task cannot be pickled: TypeError: item ['result'][0]: {COMPLAINT}\n" in text
    assert text.endswith("leave it out of the result")


def test_the_element_whose_result_it_is_is_named(pool):
    with pytest.raises(shoal.ResultEncodingError, match=r"result of element 0 of the input .* item \['result'\]"):
        pool.map(locked, [1])
