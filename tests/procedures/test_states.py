"""States on the way of a training: results of their own, and no part of what the training is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from winticket.experiment import Execution, Experiment, conduct, cost, plan
from winticket.experiment.compare import compare
from winticket.run import Event, Interrupted, Store, Task, run, walk, whole_of
from winticket.stages.training import _Since
from winticket.ticket import same_bits

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL: dict[str, Any] = {
    "model": "lenet-12-8",
    "steps": 12,
    "density": (0.5,),
    "replicates": 2,
    "gate": False,
    "criterion": "magnitude",
}
AT = {"rewind": "to_step", "rewind_step": 4}


def dense(planned: Any) -> Task:
    task: Task = planned.tasks[0, "dense", 0]
    return task


def states_of(planned: Any, store: Store) -> Task:
    (task,) = [t for t in _all(planned) if whole_of(t) is not None]
    return task


def _all(planned: Any) -> list[Task]:
    return walk(planned.tasks.values())


def computed(experiment: Experiment, store: Path) -> list[str]:
    """What a run computed: arms, and "states" where these were computed by themselves."""
    done: list[str] = []

    def hear(event: Event) -> None:
        if event.kind == "finished" and event.worker is not None:
            done.append("states" if "states" in event.task.label else str(event.task.label["arm"]))

    run(list(plan(experiment).tasks.values()), store, on_event=hear)
    return sorted(done)


def test_a_training_is_the_same_whatever_is_kept_of_it(tmp_path: Path) -> None:
    plain, kept, later = (
        Experiment.of("digits", **SMALL, **more) for more in ({}, AT, {**AT, "rewind_step": 7})
    )
    assert dense(plan(plain)).key == dense(plan(kept)).key == dense(plan(later)).key
    # Alone, and with states handed over on its way.
    assert computed(plain, tmp_path / "a") == ["dense", "random", "reinit", "ticket"]
    assert computed(kept, tmp_path / "b") == ["dense", "random", "reinit", "ticket"]
    one, two = (Store(tmp_path / name).get(dense(plan(plain)).key) for name in "ab")
    assert [list(path.saved) for path in (*one, *two)] == [[12]] * 4
    for a, b in zip(one, two, strict=True):
        assert same_bits(a.saved[12].weights, b.saved[12].weights)
        assert same_bits({"loss": a.curve.validation_loss}, {"loss": b.curve.validation_loss})


def test_one_more_state_costs_one_training_up_to_it(tmp_path: Path) -> None:
    plain, kept = Experiment.of("digits", **SMALL), Experiment.of("digits", **SMALL, **AT)
    computed(plain, tmp_path / "warm")
    price = cost(plan(kept), Execution.local(tmp_path / "warm", workers=1), measure=False)
    # Two replicates: a ticket and a random mask from step 4, a re-initialised one from 0, and the states up to 4.
    assert price.steps == 2 * (8 + 8 + 12 + 4)
    assert computed(kept, tmp_path / "warm") == ["random", "reinit", "states", "ticket"]
    computed(kept, tmp_path / "cold")
    alone, handed = (
        Store(tmp_path / name).get(states_of(plan(kept), Store(tmp_path / name)).key)
        for name in ("warm", "cold")
    )
    for a, b in zip(alone, handed, strict=True):
        assert list(a) == list(b) == [4]
        for part in ("weights", "buffers", "optimizer"):
            assert same_bits(getattr(a[4], part), getattr(b[4], part))
    assert a[4].optimizer
    assert computed(kept, tmp_path / "warm") == []


# With states after steps 2 and 4 of twelve in the store, those after 7 take three steps, from 4 on; and those after 3
# take one, from 2 on. Bits are those of a training that handed them over.
@pytest.mark.parametrize(("step", "first"), [(7, 5), (3, 3), (2, 1)])
def test_missing_states_are_trained_from_the_nearest_stored_one(
    step: int, first: int, tmp_path: Path
) -> None:
    plain = Experiment.of("digits", **SMALL)
    computed(plain, tmp_path / "warm")
    for before in (2, 4):
        if before != step:
            computed(plain.but(rewind="to_step", rewind_step=before), tmp_path / "warm")
    later = plan(plain.but(rewind="to_step", rewind_step=step))
    target, seen = states_of(later, Store(tmp_path / "warm")), []
    outcomes = run(
        [target],
        tmp_path / "warm",
        on_event=lambda event: seen.append(event.step) if event.kind == "progress" else None,
    )
    assert next(each for each in seen if each) == first
    computed(plain.but(rewind="to_step", rewind_step=step), tmp_path / "cold")
    near, cold = outcomes.value(target), Store(tmp_path / "cold").get(target.key)
    for a, b in zip(near, cold, strict=True):
        assert list(a) == list(b) == [step]
        for part in ("weights", "buffers", "optimizer"):
            assert same_bits(getattr(a[step], part), getattr(b[step], part))
        assert a[step].step == step


def test_a_checkpoint_of_a_training_that_began_elsewhere_is_no_use() -> None:
    kept: list[Any] = [None]

    class Checkpoint:
        def load(self) -> Any:
            return kept[0]

        def save(self, value: Any) -> None:
            kept[0] = value

        def due(self) -> bool:
            return True

    assert _Since(Checkpoint(), None).load() is None
    kept[0] = {"step": 3}  # as a training by itself writes it
    assert _Since(Checkpoint(), None).load() is None
    _Since(Checkpoint(), 4).save("training")
    assert [_Since(Checkpoint(), step).load() for step in (4, 2, None)] == ["training", None, None]


def test_rewinds_to_several_steps_share_the_dense_training(tmp_path: Path) -> None:
    choices = {name: SMALL[name] for name in ("model", "steps", "replicates")}
    where: dict[str, Any] = {"store": tmp_path / "runs", "out": tmp_path / "out", "workers": 0}
    compare("digits", methods=("imp", "imp@3", "imp@5"), density=0.5, **where, **choices)
    store = Store(tmp_path / "runs")
    keys = [row.key for row in store.ls() if row.kind == "result"]
    dense_keys = [k for k in keys if store.meta(k)["label"]["arm"] == "dense"]  # type: ignore[index, call-overload]
    whole = [k for k in dense_keys if store.meta(k)["fn"] == "winticket/train_stack"]
    lengths = [int(store.get(k)[0].curve.step[-1]) for k in whole]
    assert 12 in lengths
    # Others are as long as makes their method's whole search cost the same; no two are one training.
    assert len(set(lengths)) == len(lengths)
    assert len(dense_keys) - len(whole) == 2 + 2  # states at 3 and at 5, of twelve steps and of those others


def test_early_bird_and_imp_share_it_too(tmp_path: Path) -> None:
    bird = Experiment.of("digits", **{**SMALL, "method": "early-bird", "criterion": "l1_units"})
    computed(bird, tmp_path / "runs")
    assert "dense" not in computed(
        Experiment.of("digits", **SMALL, exclude=("fc3.weight",)), tmp_path / "runs"
    )


def test_states_are_kept_with_their_run_and_shown_in_no_count(tmp_path: Path) -> None:
    kept = Experiment.of("digits", **SMALL, **AT)
    result = conduct(kept, store=tmp_path / "runs", out=tmp_path / "out", workers=0)
    # Four trainings, and the states that one of them handed over: nothing was there before.
    assert (result.document["computed"], result.document["reused"]) == (5, 0)
    assert states_of(plan(kept), Store(tmp_path / "runs")).key in result.document["keys"]
    assert {entry["arm"] for entry in result.document["costs"]} == {"dense", "ticket", "reinit", "random"}
    steps = {e["arm"]: e["steps"] for e in result.document["costs"]}
    assert steps["ticket"] == 12 + 8  # its own, and the dense training that it was pruned from
    assert Store(tmp_path / "runs").gc(keep=set(result.document["keys"])) == []


@pytest.mark.parametrize("rewind", ["learning_rate", "fine_tune"])
def test_rewinds_of_the_rate_need_no_state(rewind: str, tmp_path: Path) -> None:
    asked = Experiment.of("digits", **SMALL, rewind=rewind, rewind_step=4)
    assert all(whole_of(task) is None for task in _all(plan(asked)))
    assert computed(asked, tmp_path / "runs") == ["dense", "random", "reinit", "ticket"]


def test_a_training_taken_up_after_the_step_leaves_its_states_to_be_computed(tmp_path: Path) -> None:
    """It was put aside before anybody wanted a state that it had passed already; the state is right all the same."""
    choices = {**SMALL, "steps": 600, "evaluate_every": 300, "early_points": False}
    plain, kept = Experiment.of("digits", **choices), Experiment.of("digits", **choices, **AT)
    store, asked = Store(tmp_path / "runs"), dense(plan(plain))

    def stop() -> bool:
        return store.load_partial(asked.key) is not None

    with pytest.raises(Interrupted):
        run([asked], store, stop=stop, checkpoint_seconds=0.0)
    put_aside = store.load_partial(asked.key)
    assert 4 < put_aside["step"] < 600
    assert "states" in computed(kept, tmp_path / "runs")
    computed(kept, tmp_path / "cold")
    one, two = (
        Store(tmp_path / name).get(states_of(plan(kept), store).key)[0][4] for name in ("runs", "cold")
    )
    assert same_bits(one.weights, two.weights)
