# SPDX-License-Identifier: BSD-3-Clause
"""Equal strings are one in a stream with a class by value, whichever of them are one object where it is dumped."""

import collections
import gc
import io
import pickle

import pytest

import shoal

KINDS = {
    "ascii": "key{}",
    "latin": "clé{}",
    "two bytes": "ключ{}",
    "four bytes": "🔑{}",
    "long": "x" * 300 + "{}",
    "lone surrogates": "\udc80{}",
}


def texts(form, count):
    """Anew at each call: no two of them are one object."""
    return [form.format(n) for n in range(count)]


def make_class(**attributes):
    return type("Made", (), {"__module__": "nowhere", **attributes})


def dumped(make, protocol=5):
    """What it makes is gone by then, its classes included, so that a load makes all of it."""
    stream = shoal.dumps(make(), protocol)
    gc.collect()
    return stream


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_of_any_number_in_lists_and_dicts_before_and_behind_a_class(kind, protocol):
    form = KINDS[kind]

    def make():
        return texts(form, 700), make_class(names=texts(form, 900)), texts(form, 1500), dict.fromkeys(texts(form, 800))

    stream = dumped(make, protocol)
    before, made, behind, keys = pickle.loads(stream)
    assert behind == texts(form, 1500) and before == behind[:700] and list(keys) == behind[:800]
    for part in before, made.names, keys:
        assert all(one is other for one, other in zip(part, behind))
    assert shoal.dumps((before, made, behind, keys), protocol) == stream


def test_what_differs_stays_apart():
    known = ["é", "e\u0301", "\xe9\u0100"[:1], "a\0", "a", "", "\0", "ab", "a" * 64, "a" * 65, "a\u0100", "a\U00010000"]
    known += ["".join(pair) for pair in zip("abcdefgh" * 40, map(chr, range(320)))]
    made, loaded = pickle.loads(dumped(lambda: (make_class(names=known), list(known))))
    assert loaded == known and made.names == known


def test_a_subclass_of_str_is_itself():
    def make():
        user = type("Text", (collections.UserString,), {"__module__": "nowhere"})
        word = type("Word", (str,), {"__module__": "nowhere"})
        return make_class(name="word"), "".join(["wo", "rd"]), word("word"), user("word")

    made, plain, own, user = pickle.loads(dumped(make))
    assert made.name is plain and type(own).__name__ == "Word" and own == "word" and user.data is plain


def test_strings_that_were_written_in_vain_are_written_again():
    """What leads back to the class is tried, taken back and follows the class: with all of its strings."""

    def make():
        made = make_class()
        for n in range(200):
            setattr(made, f"registry{n}", {form.format(n % 3): [form.format(n), made] for form in KINDS.values()})
        made.last = texts("key{}", 300)
        return made, texts("key{}", 300)

    arrived, behind = pickle.loads(dumped(make))
    for n in range(200):
        wanted = {form.format(n % 3): [form.format(n), arrived] for form in KINDS.values()}
        assert getattr(arrived, f"registry{n}") == wanted
        assert getattr(arrived, f"registry{n}")[f"key{n % 3}"][0] is behind[n]
    assert arrived.last == behind and all(one is other for one, other in zip(arrived.last, behind))


def test_a_memo_that_is_cleared_or_replaced_under_way_forgets_them():
    class Clears:
        def __init__(self, pickler, memo):
            self.pickler, self.memo = pickler, memo

        def __reduce__(self):
            if self.memo is None:
                self.pickler.clear_memo()
            else:
                self.pickler.memo = self.memo
            return list, ()

    for memo in None, {}:
        file = io.BytesIO()
        pickler = shoal.Pickler(file, 5)
        made = make_class(names=texts("key{}", 300))
        pickler.dump([made, texts("key{}", 300), Clears(pickler, memo), *texts("other{}", 300), texts("key{}", 300)])
        file.seek(0)
        file.truncate()
        pickler.clear_memo()
        pickler.dump([made, texts("key{}", 300)])
        assert file.getvalue() == shoal.dumps([made, texts("key{}", 300)])


def test_a_pickler_that_is_used_again_finds_them_in_its_memo():
    file = io.BytesIO()
    pickler = shoal.Pickler(file, 5)
    pickler.dump(texts("key{}", 300))
    pickler.dump([make_class(names=texts("key{}", 400)), texts("key{}", 500)])
    del pickler
    gc.collect()
    unpickler = pickle.Unpickler(io.BytesIO(file.getvalue()))
    first = unpickler.load()
    made, last = unpickler.load()
    assert first == last[:300] and made.names == last[:400] and last == texts("key{}", 500)
    assert all(one is other for one, other in zip(made.names, last))
