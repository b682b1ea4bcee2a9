"""Arrays from pickle files, of which nothing is run."""

import pickle
import warnings
from pathlib import Path
from typing import Any

from robust_flatness.errors import FileError

#: What pickled arrays are rebuilt with; a file that asks for anything else is refused.
ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _Forbidden(pickle.UnpicklingError):
    pass


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise _Forbidden(f"it asks for {module}.{name}, and only arrays of numbers are read")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_pickle(path: Path) -> dict[str, Any]:
    """The mapping of names to arrays, lists and numbers in a pickle of Python 2 or 3.

    Raises
    ------
    FileError
        If the file is missing or damaged, holds something else, or asks for any function: none is run.
    """
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, of old files
            content = _Arrays(file, encoding="latin1").load()
    except FileNotFoundError:
        raise FileError(f"{path}: no such file") from None
    except _Forbidden as error:
        raise FileError(f"{path}: refused: {error}; nothing of it was run") from None
    except Exception as error:  # a damaged pickle can make the interpreter of pickles raise anything
        raise FileError(f"{path}: truncated or damaged, no readable pickle ({error})") from None
    if not isinstance(content, dict):
        raise FileError(f"{path}: holds a {type(content).__name__}, expected a mapping of names to arrays")
    return content
