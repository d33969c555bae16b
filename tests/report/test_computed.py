"""The report says which layers trained on the sparse kernels."""

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


def test_layers_are_listed_by_the_highest_density_at_which_they_are_sparse() -> None:
    mixed = document((0.8, []), (0.4, ["fc1.weight"]), (0.2, ["fc1.weight", "fc2.weight"]))
    assert computed(mixed) == ("fc1 at 40 % and below; fc2 at 20 % and below; otherwise dense")
    assert computed(document((0.8, []), (0.4, []))) == "no layer"
    silent: Any = {"levels": [{"density": 0.5, "arms": {"ticket": {}}}]}
    assert computed(silent) is None
