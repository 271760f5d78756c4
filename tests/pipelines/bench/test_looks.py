"""What is between two looks."""

from typing import Any, cast

import pytest

from pipelines.bench.looks import Look, Looks
from schemas.errors import WattStreamError


@pytest.mark.parametrize("stretch", [(0, 2), (5, 6)], ids=["nothing new", "no look"])
def test_a_stretch_in_which_nothing_became_visible_is_told(stretch: tuple[float, float]) -> None:
    nobody = cast(Any, None)
    looks = Looks(nobody, nobody, {}, [Look(float(at), 7, {"worker": 1.0}, 1) for at in range(3)])
    with pytest.raises(WattStreamError, match="no event became visible"):
        looks.during(*stretch)
