import inspect
import pickle

import pytest

from t2l import errors

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_survive_pickling(cls: type[errors.T2LError]) -> None:
    again = pickle.loads(pickle.dumps(cls("rank 0 is too small: give 1 or more")))
    assert type(again) is cls
    assert str(again) == "rank 0 is too small: give 1 or more"


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not errors.T2LError])
def test_what_a_user_gets_wrong_is_a_value_error(cls: type[errors.T2LError]) -> None:
    assert issubclass(cls, ValueError)
    assert issubclass(cls, errors.T2LError)
    assert cls.__doc__
