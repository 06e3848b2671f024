# SPDX-License-Identifier: BSD-3-Clause
"""Random numbers that a seed determines, whatever worker draws them.

A seed is what numpy calls a seed sequence: an entropy and a key. A call with a seed of its own has that; a pool with a
seed spawns one for each call, by its number; a map-like call spawns one for each element, by its index. So they are the
children that `numpy.random.SeedSequence(seed).spawn(n)` has, and numbers can be drawn again without a pool.

The function is sent in a wrapper, and the worker sets its generators before it calls it, and back afterwards: neither
what other tasks drew, nor how a map was cut, nor an attempt that died counts. `random` is seeded by a number of its own
derivation, the same with and without numpy; numpy's global generator where numpy.random is loaded, or as soon as the
task loads it.
"""

from __future__ import annotations

import importlib.machinery
import itertools
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal import _ext

if TYPE_CHECKING:
    import numpy


WORDS = 8  # of the seed sequence, for numpy's global generator


class Seed(NamedTuple):
    """What the numbers of a task, or of a map-like call, come from."""

    entropy: int | tuple[int, ...]
    key: tuple[int, ...] = ()

    def child(self, number: int) -> Seed:
        """Return the seed that numpy's `SeedSequence.spawn` makes as this number."""
        return Seed(self.entropy, (*self.key, number))

    def of_call(self) -> Seed:
        """Return the seed of the next call: of the only one that this was given for."""
        return self

    def number(self) -> int:
        """Return what `random` is seeded by."""
        import hashlib

        entropy = (self.entropy,) if isinstance(self.entropy, int) else self.entropy
        text = f"{','.join(map(str, entropy))};{','.join(map(str, self.key))}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=32, person=b"shoal random").digest(), "big")

    def sequence(self) -> numpy.random.SeedSequence:
        """Return it as numpy has it."""
        from numpy.random import SeedSequence  # not by way of numpy, which has no such attribute while it is imported

        return SeedSequence(self.entropy, spawn_key=self.key)


class Seeds:
    """A pool's seed: one for each call, in the order in which they are made."""

    def __init__(self, seed: Seed) -> None:
        self._seed = seed
        self._calls = itertools.count()

    def of_call(self) -> Seed:
        """Return the seed of the next call."""
        return self._seed.child(next(self._calls))


def seed_from(given: Any) -> Seed:
    """Check what a user gave: an integer, several of them, or a numpy SeedSequence."""
    if hasattr(given, "entropy") and hasattr(given, "spawn_key"):
        return Seed(_integers(given.entropy), tuple(map(int, given.spawn_key)))
    return Seed(_integers(given))


def _integers(given: Any) -> int | tuple[int, ...]:
    try:
        if isinstance(given, Sequence) and not isinstance(given, str | bytes | bytearray) and given:
            entropy: int | tuple[int, ...] = tuple(map(operator.index, given))
        else:
            entropy = operator.index(given)
    except TypeError:
        raise TypeError(f"seed must be an integer, or several in a list, not {type(given).__name__}") from None
    if min(entropy if isinstance(entropy, tuple) else (entropy,)) < 0:
        raise ValueError(f"seed must be 0 or more, not {given!r}")
    return entropy


# ---- in the worker ----


class _Here:
    """The task that this process runs: its seed, or None, and its generator, once it was asked for."""

    seed: Seed | None = None
    generator: Any = None
    legacy: Any = None  # numpy's global generator is this one while a task with a seed runs


class Seeded:
    """A function, and what its random numbers come from."""

    __slots__ = ("_first", "_function", "_of_elements", "_seed")

    def __init__(self, function: Callable[..., Any], seed: Seed, of_elements: bool, first: int = 0) -> None:
        self._function = function
        self._seed = seed
        self._of_elements = of_elements
        self._first = first  # so many elements are not of this call, but of the one that it is a part of

    def __reduce__(self) -> tuple[Any, ...]:
        return Seeded, (self._function, Seed(*self._seed), self._of_elements, self._first)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, with the generators as the seed says."""
        with _drawing_from(self._seed.child(self._first + _ext._task_item()) if self._of_elements else self._seed):
            return self._function(*args, **kwargs)


@contextmanager
def _drawing_from(seed: Seed) -> Iterator[None]:
    import random

    before = _Here.seed, _Here.generator
    state = random.getstate()
    numpys = _Numpy(seed)
    _Here.seed, _Here.generator = seed, None
    try:
        random.seed(seed.number())
        yield
    finally:
        _Here.seed, _Here.generator = before
        numpys.restore()
        random.setstate(state)


class _Numpy:
    """numpy's global generator. Where it is not there yet, it is seeded when the task imports it."""

    def __init__(self, seed: Seed) -> None:
        self._seed = seed
        self._before: Any = None
        self._module: Any = None
        module = sys.modules.get("numpy.random")
        if hasattr(module, "set_state"):
            self.set(module)
        else:
            sys.meta_path.insert(0, self)

    def set(self, module: Any) -> None:
        """Set its state to the seed's."""
        self._module = module
        if hasattr(module, "set_bit_generator"):  # since numpy 1.24; a tenth of the time
            self._before = module.get_bit_generator()
            _Here.legacy = _Here.legacy or module.MT19937()
            module.set_bit_generator(_Here.legacy)
        else:
            self._before = module.get_state()
        module.seed(self._seed.sequence().generate_state(WORDS))

    def restore(self) -> None:
        """Set it back to what it was."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        if self._before is None:
            return
        if hasattr(self._module, "set_bit_generator"):
            self._module.set_bit_generator(self._before)
        else:
            self._module.set_state(self._before)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Find numpy.random as others do, and set its state once it is there."""
        if name != "numpy.random":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_set(module: ModuleType) -> None:
            execute(module)
            self.set(module)

        with suppress(AttributeError):  # a loader that cannot be told
            spec.loader.exec_module = execute_and_set  # type: ignore[method-assign]
        return spec


def rng() -> numpy.random.Generator:
    """Return the numpy generator of the task that runs here: the same one each time that this task asks.

    In a task with a seed it is what `numpy.random.default_rng` makes of the task's seed sequence. Elsewhere each call
    makes a new one, seeded by the system.
    """
    import numpy

    if _Here.seed is None:
        return numpy.random.default_rng()
    if _Here.generator is None:
        _Here.generator = numpy.random.default_rng(_Here.seed.sequence())
    generator: numpy.random.Generator = _Here.generator
    return generator
