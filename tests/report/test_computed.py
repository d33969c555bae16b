"""The report says which layers were computed sparse."""

from __future__ import annotations

from typing import Any

from winticket.report.reading import computed


def document(*levels: tuple[float, list[str] | None]) -> Any:
    def arm(names: list[str] | None) -> Any:
        return {} if names is None else {"sparse": names}

    return {
        "levels": [
            {"density": 1.0, "arms": {"dense": {"sparse": []}}},
            *({"density": d, "arms": {"ticket": arm(names), "random": arm([])}} for d, names in levels),
        ]
    }


def test_layers_by_the_density_they_begin_at() -> None:
    told = document((0.8, []), (0.4, ["fc1.weight"]), (0.2, ["fc1.weight", "fc2.weight"]))
    assert computed(told) == "on sparse kernels: fc1 from 40 %; fc2 from 20 % down; else dense"
    assert computed(document((0.8, []), (0.4, []))) == "dense"
    unsaid: Any = {"levels": [{"density": 0.5, "arms": {"ticket": {}}}]}
    assert computed(unsaid) is None
