"""Functions that numba compiles: types, a cache that always works, a wide product.

A compiled function lets other Python threads run, and owns nothing but its arguments.
Importing it takes a second, so nobody does before symbols are coded.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])


def vector(number: types.Type) -> types.Array:
    """Return the type of a flat array to read, which may be read-only."""
    return types.Array(number, 1, "C", readonly=True)


FLAGS = vector(types.bool_)
SHORTS = vector(types.uint16)
INTS = vector(types.int32)
LONGS = vector(types.int64)
WORDS = vector(types.uint32)
WIDE = vector(types.uint64)


def written(array: types.Array) -> types.Array:
    """Return the type of an array that a function writes to."""
    return array.copy(readonly=False)


def compiled(*signatures: object) -> Callable[[Function], Function]:
    """Compile for these signatures, once per machine.

    The machine code is kept beside the source, or in the user's cache where the
    package's folder is read-only, or in ``NUMBA_CACHE_DIR``. Where no folder can be
    written, each process compiles anew, and says so.
    """

    def compile_it(function: Function) -> Function:
        try:
            made = numba.njit(list(signatures), cache=True, nogil=True)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            # At this line: Python says so once, however many functions follow.
            warnings.warn(
                "compiled code cannot be kept, so that each start takes seconds more: "
                "set NUMBA_CACHE_DIR to a folder that can be written",
                stacklevel=1,
            )
            made = numba.njit(list(signatures), nogil=True)(function)
        return cast(Function, made)

    return compile_it


def compiled_by_type(
    signature: Callable[[Any], object], first: Any
) -> Callable[[Callable[..., Any]], Callable[[Any], Callable[..., Any]]]:
    """Compile a function for each type of number that is asked for.

    Args:
        signature: Of a type of numba.
        first: The numpy type that is compiled at once; others wait until asked for.

    Returns:
        What makes of a function one that gives it for a numpy type.
    """

    def compile_it(function: Callable[..., Any]) -> Callable[[Any], Callable[..., Any]]:
        @cache
        def for_type(number: Any) -> Callable[..., Any]:
            return compiled(signature(numba.from_dtype(number)))(function)

        for_type(first)
        return for_type

    return compile_it


def inlined(function: Function) -> Function:
    """Make a function a part of the compiled ones that call it.

    It may take arrays: at a real call numba would count references to each, which costs
    more than all the rest of a symbol.
    """
    return cast(Function, numba.njit(inline="always")(function))


def _high_product(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the upper 64 bits of the product of two 64-bit numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        first, second = (builder.zext(each, wide) for each in arguments)
        upper = builder.lshr(builder.mul(first, second), ir.Constant(wide, 64))
        return builder.trunc(upper, ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


high_product: Any = intrinsic(_high_product)
