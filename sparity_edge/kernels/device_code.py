"""Device code: how Numba compiles the functions that kernels call, once and not five times.

Numba makes of every function something that Python can call: a wrapper, an optimised module and
machine code, although those here are only ever linked into kernels. The kernel is optimised as a
whole after linking, so that work is thrown away; leaving it out halves the time of a first start.
Knows nothing of kernels.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from numba import njit
from numba.core.bytecode import FunctionIdentity
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.registry import CPUDispatcher
from numba.core.typed_passes import NopythonTypeInference

# Numba numbers functions from 1 in every process and tells closures of one name apart by these
# numbers alone. Kernels that two processes have compiled meet in a third, where of two functions
# whose symbols are equal the first one loaded serves both: findings/numba_cached_closures.sh.
FunctionIdentity._unique_ids = itertools.count(secrets.randbits(48))


class LinkedLibrary(JITCodeLibrary):  # type: ignore[misc]
    """LLVM code that is linked into that of its callers and never run by itself."""

    def finalize(self) -> None:
        """Link in what the code calls; callers optimise all of it together."""
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._final_module.verify()
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, _name: str) -> int:
        """No address: there is no machine code."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        """Where Numba leaves the environment of a function; code without exceptions reads none."""
        return self

    def set_env(self, _name: str, _env: Any) -> None:
        """Leave the environment of a function that is not loaded where it is."""


@register_pass(mutates_CFG=False, analysis_only=False)
class _LinkLater(FunctionPass):  # type: ignore[misc]
    """Gives the function being compiled a `LinkedLibrary`."""

    _name = "sparity_edge_link_later"

    def __init__(self) -> None:
        FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        """Make the library before the pass that would make an ordinary one."""
        state.library = LinkedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        return True


class DeviceCompiler(CompilerBase):  # type: ignore[misc]
    """Numba's own compiler, but for the library that the code goes into."""

    def define_pipelines(self) -> list[Any]:
        """Numba's passes for compiled Python, and the library in time for the last of them."""
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(_LinkLater, NopythonTypeInference)
        passes.finalize()
        return [passes]


class DeviceFunction(CPUDispatcher):  # type: ignore[misc]
    """A function for compiled code; Python has nothing to call."""

    def __call__(self, *_arguments: Any, **_named: Any) -> Any:
        """Refuse, where a null pointer would be followed.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{self.py_func.__name__} is linked into kernels only; wrap it in njit.")


def linked(function: Callable[..., Any], inline: bool = False) -> DeviceFunction:
    """Declare a function that kernels call.

    Args:
        function: compiled Python.
        inline: whether its code is put into its callers, however long it is.
    """
    made = njit(
        error_model="numpy",
        nogil=True,
        forceinline=inline,
        pipeline_class=DeviceCompiler,
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
    )(function)
    made.__class__ = DeviceFunction  # Numba has no setting for the class
    return made


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Compilers make millions of objects and little garbage: looking for it takes a tenth of it."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
