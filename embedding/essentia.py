"""The library essentia, which is optional. Import it through this module, so that it is quiet."""

from typing import Any


def essentia() -> Any:
    """Return the module `essentia.standard`.

    Raises
    ------
    ModuleNotFoundError
        If essentia is not installed; the text says how to install it.
    """
    try:
        import essentia as library
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "needs essentia: pip install 'covers[peers]', and run the same again"
        ) from error
    library.log.infoActive = False  # it reports models that are not used here
    library.log.warningActive = False
    import essentia.standard

    return essentia.standard
