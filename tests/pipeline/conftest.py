"""The shared data sets, as the tests of data use them."""

from data.conftest import shared_data

__all__ = ["shared_data"]
