"""The loop: it learns, stops early on an honest loss, and goes on bit by bit once interrupted."""

from __future__ import annotations

import dataclasses
import os
import signal

import pytest
import torch
from torch import nn

from forecast.batch import Spec
from forecast.batch.windows import Series, Windows
from forecast.errors import DataError, UsageError
from forecast.models.itransformer import ITransformer, ITransformerConfig
from forecast.recipe import TrainSection
from forecast.training.checkpoint import Checkpoint
from forecast.training.loop import SCHEDULES, Interrupted, Silence, fit, validation_loss


def parts(rows=260, lookback=16, horizon=4):
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(float(rows)).unsqueeze(1)
    values = torch.sin(steps * 0.5 + torch.tensor([0.0, 1.0]))
    values += 0.1 * torch.randn(rows, 2, generator=generator)
    series = Series(values=values)

    def windows(first, last):
        return Windows(
            series=series,
            origins=torch.arange(first, last),
            lookback=lookback,
            horizon=horizon,
        )

    return windows(lookback, 200 - horizon), windows(200, rows - horizon + 1)


def make(seed=0):
    torch.manual_seed(seed)
    spec = Spec(lookback=16, horizon=4, variates=2)
    return ITransformer(ITransformerConfig(width=16, heads=2), spec)


def weights(model):
    return torch.cat([value.flatten() for value in model.state_dict().values()])


class Stopper(Silence):
    """Send this process a signal at one moment, or raise as a kill would end it."""

    def __init__(self, at, action):
        self.at, self.action, self.epochs = at, action, 0

    def epoch(self, row):
        self.epochs += 1
        if self.epochs == self.at:
            self.action()


# Without a precision of its own: the suite runs in fp32, and what is marked in bf16 as well.
both = pytest.mark.bf16

SECTION = TrainSection(epochs=4, batch_size=16, learning_rate=1e-3, patience=0)


@both
def test_it_learns_and_keeps_the_weights_of_the_best_epoch():
    train, val = parts()
    model = make()
    before = validation_loss(model, val)
    fitted = fit(model, train, val, SECTION)
    losses = [row["val_loss"] for row in fitted.history]
    assert fitted.best_loss == min(losses) < 0.8 * before
    assert fitted.best_epoch == losses.index(min(losses)) + 1
    # the model left behind is the one of the best epoch
    assert validation_loss(model, val) == pytest.approx(fitted.best_loss, rel=1e-12)


@both
def test_a_shorter_epoch_draws_its_windows_anew_and_resumes_to_the_same_bits(tmp_path):
    train, val = parts()
    drawn = []

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Watched(Windows):
        def batch(self, index):
            drawn.append(index.tolist())
            return super().batch(index)

    watched = Watched(**{f.name: getattr(train, f.name) for f in dataclasses.fields(Windows)})
    section = dataclasses.replace(SECTION, epoch_windows=40, batch_size=16)
    straight = make()
    fit(straight, watched, val, section)
    # 40 windows are steps of 16, 16 and 8, four epochs of them, no window twice in one
    assert [len(index) for index in drawn] == [16, 16, 8] * 4
    epochs = [{row for index in drawn[at : at + 3] for row in index} for at in range(0, 12, 3)]
    assert all(len(epoch) == 40 for epoch in epochs)
    assert epochs[0] != epochs[1]
    stopped = make()
    checkpoint = Checkpoint(path=tmp_path / "c.safetensors", identity={})
    stop = Stopper(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        fit(stopped, train, val, section, watcher=stop, checkpoint=checkpoint)
    resumed = make(seed=1)
    fit(resumed, train, val, section, checkpoint=checkpoint)
    assert torch.equal(weights(resumed), weights(straight))


@both
def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    train, val = parts()
    first, second, third = make(), make(), make()
    for model in (first, second):
        torch.manual_seed(7)
        fit(model, train, val, SECTION)
    assert torch.equal(weights(first), weights(second))
    torch.manual_seed(7)
    fit(third, train, val, TrainSection(epochs=4, batch_size=16, learning_rate=1e-3, seed=1))
    assert not torch.equal(weights(first), weights(third))


def test_validation_loss_is_a_sum_divided_once(monkeypatch):
    _, val = parts()
    model = make()
    losses = []
    for size in (1, 7, 256):
        monkeypatch.setattr("forecast.training.loop.EVALUATION_BATCH", size)
        losses.append(validation_loss(model, val))
    assert losses[0] == pytest.approx(losses[2], rel=1e-6)
    assert losses[1] == pytest.approx(losses[2], rel=1e-6)


def test_patience_stops_a_run_that_gets_no_better():
    train, val = parts()
    worse = TrainSection(epochs=20, batch_size=16, learning_rate=0.5, patience=2, precision="fp32")
    fitted = fit(make(), train, val, worse)
    assert len(fitted.history) == fitted.best_epoch + 2 < 20


@both
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_resumed_run_ends_with_the_same_bits(tmp_path, number):
    train, val = parts()
    undisturbed = make()
    torch.manual_seed(3)
    expected = fit(undisturbed, train, val, SECTION)

    checkpoint = Checkpoint(path=tmp_path / "checkpoint.safetensors", identity={"recipe": "a"})
    stopper, stopped = Stopper(2, lambda: os.kill(os.getpid(), number)), make()
    torch.manual_seed(3)
    with pytest.raises(Interrupted) as caught:
        fit(stopped, train, val, SECTION, watcher=stopper, checkpoint=checkpoint)
    assert caught.value.exit_code == 128 + number
    resumed = make(seed=99)
    torch.manual_seed(123)
    fitted = fit(resumed, train, val, SECTION, checkpoint=checkpoint)
    assert torch.equal(weights(resumed), weights(undisturbed))
    assert fitted == expected


@both
def test_a_checkpoint_inside_an_epoch_is_exact_too(tmp_path):
    train, val = parts()
    undisturbed = make()
    torch.manual_seed(3)
    fit(undisturbed, train, val, SECTION)

    class Crash(Exception):
        pass

    often = dataclasses.replace(SECTION, checkpoint_seconds=1e-9)
    checkpoint = Checkpoint(path=tmp_path / "checkpoint.safetensors", identity={})
    model = make()
    calls = 0
    original = model.loss

    def loss(batch):
        nonlocal calls
        calls += 1
        # 12 steps an epoch and one validation batch: this lies in the middle of the second epoch
        if calls == 19:
            raise Crash
        return original(batch)

    model.loss = loss
    torch.manual_seed(3)
    with pytest.raises(Crash):
        fit(model, train, val, often, checkpoint=checkpoint)
    resumed = make(seed=99)
    fit(resumed, train, val, SECTION, checkpoint=checkpoint)
    assert torch.equal(weights(resumed), weights(undisturbed))


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_refused(tmp_path):
    train, val = parts()
    path = tmp_path / "checkpoint.safetensors"
    fit(make(), train, val, SECTION, checkpoint=Checkpoint(path=path, identity={"recipe": "a"}))
    with pytest.raises(UsageError, match="recipe a, this one has b"):
        fit(make(), train, val, SECTION, checkpoint=Checkpoint(path=path, identity={"recipe": "b"}))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="damaged"):
        fit(make(), train, val, SECTION, checkpoint=Checkpoint(path=path, identity={"recipe": "a"}))


def test_a_loss_that_is_no_number_is_reported_with_the_learning_rate():
    train, val = parts()
    model = make()
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))
    with pytest.raises(UsageError, match=r"Epoch 1: .* no longer finite at learning rate 0\.001"):
        fit(model, train, val, SECTION)


def test_out_of_memory_names_the_batch_size():
    class Huge(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def loss(self, batch):
            torch.empty(2**60)

    train, val = parts()
    with pytest.raises(UsageError, match="batches of 16"):
        fit(Huge(), train, val, SECTION)


def test_schedules_by_hand():
    halving, cosine, cycle = (SCHEDULES[name] for name in ("halving", "cosine", "onecycle"))
    # the full rate for two epochs, then half of it each time
    assert [halving(epoch, 0, 1, 0.3) for epoch in range(5)] == [1, 1, 0.5, 0.25, 0.125]
    assert cosine(0, 0, 100, 0.3) == 1
    assert cosine(0, 50, 100, 0.3) == pytest.approx(0.5)
    assert cosine(0, 100, 100, 0.3) == pytest.approx(0, abs=1e-12)
    for up in (TrainSection().warm_up, 0.1):
        assert cycle(0, 0, 100, up) == pytest.approx(0.04)
        assert cycle(0, round(100 * up), 100, up) == pytest.approx(1)
        assert cycle(0, 100, 100, up) == pytest.approx(0, abs=1e-12)


def test_one_cycle_is_that_of_torch_which_published_recipes_name():
    cycle, steps = SCHEDULES["onecycle"], 500
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps + 1)
    for step in range(steps):
        expected = reference.get_last_lr()[0]
        # its peak lies a step before 0.3 of all, and it ends at 4e-6 instead of 0
        assert cycle(0, step, steps, TrainSection().warm_up) == pytest.approx(expected, abs=0.01)
        optimizer.step()
        reference.step()


class Diverging(nn.Module):
    """Learn, but from one epoch on be judged by no number, or have a weight that is none."""

    def __init__(self, at, weight):
        super().__init__()
        self.number, self.calls = nn.Parameter(torch.zeros(())), 0
        self.at, self.weight = at, weight

    def loss(self, batch):
        return (self.number - 1).square(), torch.ones((), dtype=torch.float64)

    def validation(self, batch):
        self.calls += 1
        if self.calls > self.at and self.weight:
            self.number.fill_(float("inf"))
        bad = self.calls > self.at and not self.weight
        return torch.tensor(float("nan") if bad else 2.0 - self.calls / 10), torch.ones(())


@both
@pytest.mark.parametrize("weight", [False, True])
def test_a_validation_that_is_no_number_ends_the_training_and_is_never_the_best(weight):
    seen = Stopper(9, lambda: None)
    section = TrainSection(epochs=5, learning_rate=0.01, patience=0)
    # one call before the first epoch, one after each: the third epoch's is the fourth
    with pytest.raises(UsageError, match=r"Epoch 3: the .* no longer finite") as caught:
        fit(Diverging(3, weight), *parts(), section, watcher=seen)
    assert seen.epochs == 2
    assert "train.learning_rate=0.001" in caught.value.hint


def test_an_untrained_model_judged_by_no_number_may_still_learn():
    class Late(Judged):
        def validation(self, batch):
            if not self.number.item():
                return torch.tensor(float("nan")), torch.ones(())
            return super().validation(batch)

    section = TrainSection(epochs=3, learning_rate=0.01)
    assert fit(Late(wanted=1.0), *parts(), section).best_epoch == 3


class Judged(nn.Module):
    """Learn a number, and be judged by how far it is from another."""

    def __init__(self, wanted):
        super().__init__()
        self.number, self.wanted = nn.Parameter(torch.zeros(())), wanted

    def loss(self, batch):
        return (self.number - 1).square(), torch.ones((), dtype=torch.float64)

    def validation(self, batch):
        return (self.number - self.wanted).abs(), torch.ones((), dtype=torch.float64)


@both
def test_patience_counts_from_the_start_where_nothing_improves():
    # its validation only gets worse, whatever the rounding: two epochs and no more
    section = TrainSection(epochs=20, learning_rate=0.01, patience=2)
    fitted = fit(Judged(wanted=-1.0), *parts(), section)
    assert (fitted.best_epoch, len(fitted.history)) == (0, 2)


@both
def test_a_model_with_a_validation_of_its_own_is_judged_by_it_from_the_start():
    section = TrainSection(epochs=3, learning_rate=0.01)
    away = Judged(wanted=-1.0)
    fitted = fit(away, *parts(), section)
    # the loss pulls it to 1, away from what it is judged by
    assert (fitted.best_epoch, fitted.best_loss) == (0, 1.0)
    assert away.number.item() == 0
    assert fit(Judged(wanted=1.0), *parts(), section).best_epoch == 3
