"""Where a chat template runs: Jinja's immutable sandbox as `transformers` sets it up, and limits on what it may use.

Jinja's sandbox stops code, not waste. Here each value that lasts is bounded (a sum, a product, a list, what a filter
or a method gives), so that one expression costs at most its written length times that bound, and whatever repeats (a
loop, a call) looks at the clock. The bounds follow from the conversation, so no honest template meets them. A signal
would work in the main thread alone, and a process of its own for each row would cost more than the row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from time import monotonic, thread_time
from types import BuiltinMethodType, FunctionType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, generate_lorem_ipsum

from tutelage.data.encode import clock
from tutelage.data.encode.growth import FILTERS, METHODS, weight, written
from tutelage.data.encode.limits import KEPT, LOOP, NOTED, LimitError, limited

MAX_SOURCE = 128 * 1024
"""Characters of a template; the longest published ones have a sixth of it."""
SECONDS = 2.0
"""Time for one rendering."""
_SPARE, _TIMES = 256 * 1024, 4
"""Characters that a value may have, beside this many times those of the conversation."""
_WRITTEN = 16
"""How many times that macros and blocks may write; most of it is written again by what calls them."""
_MAX_NUMBER, _MAX_BITS = 100_000, 4096
_PIECES = 32


class Environment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with the names that chat templates rely on, and with limits."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self._until = float("inf")
        self._computed: float | None = None
        self._volume = 0
        self._size = _SPARE
        self._given: object = None
        self.concat = self._joined  # type: ignore[method-assign]
        self.filters["tojson"] = _to_json
        for name in FILTERS.keys() & self.filters.keys():
            measure = FILTERS[name]
            self.filters[name] = self._measured(self.filters[name], measure)
        self.filters |= {LOOP: self._each, KEPT: self._kept, NOTED: self._noted}
        self.globals["lipsum"] = self._measured(generate_lorem_ipsum, FILTERS["lipsum"])
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda form: clock.now().strftime(form)
        self._names = dict(self.globals)

    def compiled(self, source: str) -> jinja2.Template:
        """The template with its limits built in.

        Raises:
            jinja2.TemplateError: it is not valid, or too long.
        """
        if len(source) > MAX_SOURCE:
            raise LimitError(f"it has {len(source):,} characters; {MAX_SOURCE:,} are allowed")
        if "\0" in source:
            raise LimitError("it holds zero bytes, so it is not text")
        try:
            return self.from_string(limited(self.parse(source), self))
        except (RecursionError, SyntaxError, MemoryError) as error:
            raise LimitError(f"it is nested too deeply: {error}") from error

    def rendered(self, template: jinja2.Template, given: dict[str, Any]) -> str:
        """The text that a compiled template writes of what is given."""
        self._until, self._computed, self._volume = monotonic() + SECONDS / 2, None, 0
        self._size, self._given = _SPARE, given
        try:
            # As Template.render does, but for the names of all templates, which it would copy one by one each time.
            names = {**self._names, **given}
            return self._joined(template.root_render_func(Context(self, names, template.name, template.blocks)))
        except RecursionError as error:
            raise LimitError("it calls itself without end") from error
        except (MemoryError, OverflowError) as error:
            raise LimitError(f"it asks for too much: {error}") from error
        finally:
            self._given = None

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Each call of a template goes through here."""
        if monotonic() > self._until:
            self._hurry()
        for value in args:
            if value.__class__ is not str:
                self._check_given(value)
        for value in kwargs.values():
            self._check_given(value)
        if obj.__class__ is BuiltinMethodType and obj.__self__.__class__ is str:
            # Nothing that the general way looks for is found on a method of a text, which is what is called most.
            kwargs.pop("_block_vars", None)
            kwargs.pop("_loop_vars", None)
            if obj.__name__ in METHODS:
                self._check_size(_expected(METHODS[obj.__name__], (obj.__self__, *args), kwargs))
            return obj(*args, **kwargs)
        if obj.__class__ is FunctionType:
            format = getattr(getattr(obj, "__wrapped__", None), "__self__", None)  # Jinja wraps str.format.
            if isinstance(format, str):
                self._check_size(_expected(written, (format, *args), kwargs))
        # As the sandbox does, without another call in between.
        if not self.is_safe_callable(obj):
            raise SecurityError(f"{obj!r} is not safely callable")
        return context.call(obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Products, powers and `%`, before they are computed."""
        if operator == "%":
            if isinstance(left, str):
                for value in right if isinstance(right, tuple) else (right,):
                    self._check_given(value)
                self._check_size(written(left, right))
                return self._kept(left % right)
        elif operator == "**":
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _MAX_BITS:
                raise LimitError("it computes a number without bounds")
        elif isinstance(left, int) and isinstance(right, int):
            if left.bit_length() + right.bit_length() > _MAX_BITS:
                raise LimitError("it computes a number without bounds")
        else:
            one, other = (left, right) if isinstance(right, int) else (right, left)
            if isinstance(other, int):
                self._check_size(self._weight(one) * max(other, 0))
        return super().call_binop(context, operator, left, right)

    def _each(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            if monotonic() > self._until:
                self._hurry()
            yield item

    def _joined(self, pieces: Iterable[str]) -> str:
        """What a template, a macro or a block writes."""
        if isinstance(pieces, list):  # A macro's or a block's; the template's own come one by one.
            parts, size = pieces, sum(map(len, pieces))
        else:
            pieces, parts, size = iter(pieces), [], 0
            while size <= self._size and (more := list(islice(pieces, _PIECES))):
                parts += more
                size += sum(map(len, more))
                if size > self._size:
                    self._check_size(size)
        if size > self._size:
            self._check_size(size)
        if monotonic() > self._until:
            self._hurry()
        return "".join(parts)

    def _kept(self, value: Any) -> Any:
        """The value, unless it is too large to last."""
        if isinstance(value, str):
            # The skeletons' contents note who asks for their length.
            if str.__len__(value) > self._size:
                self._check_size(str.__len__(value))
        elif isinstance(value, list | tuple | dict):
            self._check_size(self._weight(value))
        if monotonic() > self._until:
            self._hurry()
        return value

    def _noted(self, value: Any) -> Any:
        """What a macro or a block writes, which is kept until the whole is joined."""
        text = str(value)
        self._volume += len(text)
        if self._volume > _SPARE:
            self._check_size(self._volume // _WRITTEN)
        return text

    def _check_given(self, value: Any) -> None:
        if isinstance(value, int):
            if abs(value) > _MAX_NUMBER:
                raise LimitError(f"it gives {value if abs(value) < 10**18 else 'a huge number'} to a function")
        elif isinstance(value, list | tuple | dict | Namespace):
            self._check_size(self._weight(value))

    def _measured(self, function: Callable[..., Any], measure: Callable[..., int]) -> Callable[..., Any]:
        """A filter that is refused before it writes too much."""
        # Filters that want the environment or the context get it as their first argument, before the value.
        skip = 0 if getattr(function, "jinja_pass_arg", None) is None else 1

        def filter(*args: Any, **kwargs: Any) -> Any:
            for value in chain(args[skip + 1 :], kwargs.values()):
                self._check_given(value)
            if len(args) > skip and isinstance(args[skip], Iterator):
                # What is given one by one can be measured only as a whole.
                args = (*args[:skip], list(args[skip]), *args[skip + 1 :])
            self._check_size(_expected(measure, args[skip:], kwargs))
            return self._kept(function(*args, **kwargs))

        if skip:
            filter.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
        return filter

    def _hurry(self) -> None:
        """Half the time has passed on the wall's clock; the other half is counted while the template computes.

        A process that was held up by others, or put to sleep, is not taken for a template that wastes time.
        """
        now = thread_time()
        if self._computed is None:
            self._computed = now
        elif now - self._computed > SECONDS / 2:
            raise LimitError(f"it takes longer than {SECONDS:g} seconds")
        self._until = monotonic() + SECONDS / 100

    def _check_size(self, size: int) -> None:
        if size > self._size:
            self._size = max(self._size, _SPARE + _TIMES * weight(self._given, 1 << 62))
            if size > self._size:
                raise LimitError(f"it writes more than {self._size:,} characters")

    def _weight(self, value: Any) -> int:
        """Characters and items in a value, counted no further than to the largest size."""
        size = weight(value, self._size)
        if size > self._size:
            self._check_size(size)
            size = weight(value, self._size)
        return size


def _expected(measure: Callable[..., int], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    try:
        return measure(*args, **kwargs)
    except (TypeError, ValueError, AttributeError):
        return 0  # The filter or the method says itself what is wrong.


class _Generation(Extension):
    """`{% generation %}` blocks print what they hold; the spans they mark are not needed."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which no chat template wants.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
