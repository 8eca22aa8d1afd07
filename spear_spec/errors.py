"""Every error that a user can cause, each with one line that says what to do."""


class SpearSpecError(Exception):
    """Bad input of any kind. The command line prints its message and exits with status 2."""


class ConfigError(SpearSpecError):
    """An option or a configuration file holds a value that cannot be used."""


class TextError(SpearSpecError):
    """The text cannot be spoken."""


class BundleError(SpearSpecError):
    """A voice folder is missing, damaged, truncated or not one of ours.

    Its line has at most 300 printable characters, whatever the folder holds.
    """

    LONGEST = 300

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else "?" for c in " ".join(message[:4096].split()))
        if len(message) > 4096 or len(line) > self.LONGEST:
            half = self.LONGEST // 2 - 3
            line = f"{line[:half]} ... {line[-half:]}"
        super().__init__(line)


class DeviceError(SpearSpecError):
    """The device asked for is not there."""


class AudioError(SpearSpecError):
    """Audio cannot be read, written or rendered."""


class NumericsError(SpearSpecError):
    """A model produced NaN or infinity."""

    def __init__(
        self, message: str = "the model produced NaN or infinity; the weights are damaged or the dtype is too narrow"
    ) -> None:
        super().__init__(message)


class ContractError(SpearSpecError):
    """An object that is not ours (a drafter, a rule, a stage, a target), or a call, broke what its protocol says."""


class MissingExtraError(SpearSpecError):
    """An optional dependency is not installed."""


class WorkerError(SpearSpecError):
    """Processes that work for a run end again and again, or their cluster is lost; what was finished stays."""
