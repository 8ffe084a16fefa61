"""Every error a user can cause, one class for each place where the remedy differs.

    SparityError             the base: one sentence that names the fault and the remedy
    +-- OptionError          an option or argument has a value that cannot be honoured
    |   +-- NoPlanError      the packed folder does not carry the sparsity plan asked for
    |   +-- TooLossyError    what is asked of a sparsity plan changes the text too much
    +-- ConfigError          config.json asks for something this decoder does not run
    +-- SourceError          a source of weights is missing, unreachable, damaged or lies
    +-- FormatError          a packed folder is damaged, incomplete or of another version
    +-- ContextError         the text does not fit into the context
    +-- TemplateError        the chat template is wrong, runs too long or asks for too much
    +-- ResourceError        the machine or a limit leaves less than the work needs

The command line prints the sentence and exits with code 1. Mistakes of the programmer stay
`AssertionError` and `TypeError`.
"""


class SparityError(Exception):
    """Base of all errors that a user can cause; `str(error)` is one sentence with the remedy."""


class OptionError(SparityError, ValueError):
    """An option or argument has a value that cannot be honoured."""


class NoPlanError(OptionError):
    """The packed folder does not carry the sparsity plan asked for.

    Args:
        sentence: what is said of it.
        plan: the name of the plan that is missing.
    """

    def __init__(self, sentence: str, plan: str) -> None:
        super().__init__(sentence, plan)
        self.plan = plan

    def __str__(self) -> str:
        return str(self.args[0])


class TooLossyError(OptionError):
    """What is asked of a sparsity plan changes the model's predictions too much to go unasked.

    Args:
        finding: what it would cost, as the beginning of a sentence.
        way: how one asks for it all the same, as the end of that sentence.
    """

    def __init__(self, finding: str, way: str) -> None:
        super().__init__(finding, way)
        self.finding = finding

    def __str__(self) -> str:
        return "; ".join(self.args) + "."


class ConfigError(SparityError, ValueError):
    """The model's configuration asks for something this decoder does not run."""


class SourceError(SparityError):
    """A source of weights is missing, unreachable, damaged or inconsistent."""


class FormatError(SparityError):
    """A packed folder is damaged, incomplete or of another version."""


class ContextError(SparityError, ValueError):
    """The prompt or conversation does not fit into the model's context."""


class TemplateError(SparityError, ValueError):
    """The chat template cannot be rendered within its limits."""


class ResourceError(SparityError):
    """The machine, or a limit of this process, leaves less memory than the work needs."""


def library_words(error: BaseException, most: int = 120) -> str:
    """What a library says of its failure, fit to stand inside a sentence of ours.

    Args:
        error: what it raised.
        most: characters; libraries repeat megabytes of what they were given.

    Returns:
        Its first line, printable and without a full stop; the error's name if it says nothing.
    """
    lines = str(error)[: 8 * most].strip().splitlines()
    text = "".join(c if c.isprintable() else " " for c in lines[0]) if lines else ""
    text = " ".join(text.split())
    text = text if len(text) <= most else text[: most - 3] + "..."
    return text.rstrip(".;: ") if text.strip(".;: ") else type(error).__name__
