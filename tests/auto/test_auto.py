"""`auto` on arrays: what it must never do, and what it must always answer."""

import numpy as np
import pytest

from forecast.auto import scores
from forecast.auto.blend import Cells, blend_weights, localised
from forecast.auto.choose import Settings
from forecast.auto.distribution import measure
from forecast.auto.fitting import fit
from forecast.errors import UsageError

MIDDLE = scores.LEVELS.index(0.5)


def season_and_noise(rows, noise=0.3, count=1, seed=0, season=24):
    rng = np.random.default_rng(seed)
    wave = 10 + 4 * np.sin(2 * np.pi * np.arange(rows) / season)
    return wave[None] + noise * rng.normal(size=(count, rows))


FEW = ("ridge", "season", "in-context", "smoothing-1-level", "mean", "persistence")


def median(values, horizon, seasons=(24,), **settings):
    settings.setdefault("models", FEW)
    made = fit(values, horizon, seasons, Settings(**settings))
    return made, made.forecast(values, [values.shape[1]])[:, 0]


def test_a_season_without_noise_is_continued():
    wave = season_and_noise(24 * 22, noise=0.0)
    _, quantiles = median(wave[:, : 24 * 20], 48)
    np.testing.assert_allclose(quantiles[..., MIDDLE], wave[:, 24 * 20 :], atol=0.05)


def test_white_noise_is_forecast_by_about_its_mean():
    rng = np.random.default_rng(3)
    values = 5 + rng.normal(size=(20, 400))
    made = fit(values[:, :380], 20, (7,), Settings(models=FEW))
    ahead = made.forecast(values, [380])[:, 0, :, MIDDLE]
    error = np.abs(values[:, 380:] - ahead).mean()
    mean = np.abs(values[:, 380:] - values[:, :380].mean(1, keepdims=True)).mean()
    assert error < 1.03 * mean


def test_the_future_changes_nothing():
    values = season_and_noise(600, count=3)
    made = fit(values[:, :500], 24, (24,), Settings(models=FEW))
    shuffled = values.copy()
    shuffled[:, 524:] = 1e4
    one = made.forecast(values, [500, 524])
    np.testing.assert_array_equal(one, made.forecast(shuffled, [500, 524]))
    np.testing.assert_allclose(one[:, 0], made.forecast(values[:, :500], [500])[:, 0], rtol=1e-9)
    gone = values.copy()
    gone[:, 515:] = np.nan
    hidden = values[:, :520].copy()
    hidden[:, 515:] = np.nan
    np.testing.assert_allclose(made.forecast(gone, [520]), made.forecast(hidden, [520]), rtol=1e-9)


def test_the_same_rows_give_the_same_bytes():
    values = season_and_noise(300, count=2)
    one, two = (median(values, 24)[1] for _ in range(2))
    assert one.tobytes() == two.tobytes()


def test_quantiles_cover_what_they_say():
    values = season_and_noise(900, noise=1.0, count=6)
    made = fit(values[:, :660], 24, (24,), Settings(models=FEW))
    origins = list(range(660, 900, 24))
    quantiles = made.forecast(values, origins)
    truth = np.stack([values[:, o : o + 24] for o in origins], axis=1)
    assert 0.75 < scores.coverage(truth, quantiles[..., 1], quantiles[..., -2]) < 0.85
    assert (np.diff(quantiles, axis=-1) >= 0).all()


def test_one_wild_value_does_not_move_the_forecast():
    rng = np.random.default_rng(1)
    values = 45 + 2 * rng.normal(size=(1, 600))
    clean = median(values, 7, (7,))[1][..., MIDDLE]
    values[0, 580] = 99999.0
    made, quantiles = median(values, 7, (7,))
    assert np.abs(quantiles[..., MIDDLE] - clean).max() < 2
    assert "1 outlier was set aside" in made.notes[0]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.full((1, 1), 7.0), "too few"),
        (np.array([[1.0, 2.0, 3.0]]), "too few"),
        (np.full((2, 200), 7.0), "constant"),
        (np.full((1, 200), np.nan), "without a value"),
    ],
)
def test_tables_without_much_to_learn_get_an_answer_and_a_sentence(values, says):
    made, quantiles = median(values, 4, (7,))
    assert np.isfinite(quantiles).all()
    assert any(says in note for note in made.notes)
    last = values[:, -1:] if np.isfinite(values).any() else np.zeros((len(values), 1))
    np.testing.assert_allclose(quantiles[:, 0, MIDDLE], last[:, 0], atol=1.5)


def test_thousands_of_short_series_share_what_they_have_in_common():
    rng = np.random.default_rng(0)
    values = 20 + rng.normal(size=(2_000, 30))
    _, quantiles = median(values, 4, (12,), effort="quick")
    assert np.isfinite(quantiles).all()
    assert quantiles.shape == (2_000, 4, 19)
    assert np.abs(quantiles[..., MIDDLE] - 20).mean() < 1


def test_counts_stay_counts_and_bounds_hold():
    rng = np.random.default_rng(0)
    values = rng.poisson(0.3, size=(5, 300)).astype(float)
    made, quantiles = median(values, 10, (7,), integer=True)
    assert quantiles.min() >= 0
    assert (quantiles == np.round(quantiles)).all()
    assert any("intermittent" in note for note in made.notes)
    bounded = median(values, 10, (7,), maximum=0.5)[1]
    assert bounded.max() <= 0.5


def test_time_ends_the_candidates_and_the_leaderboard_says_so():
    values = season_and_noise(800, count=4)
    made, quantiles = median(values, 24, seconds=1e-9)
    assert np.isfinite(quantiles).all()
    assert {entry.left_out for entry in made.leaderboard} >= {"no time"}
    assert abs(sum(entry.weight for entry in made.leaderboard) - 1) < 1e-9


def test_a_candidate_that_fails_is_named(monkeypatch):
    def fails(self, values, horizon):
        raise np.linalg.LinAlgError("singular")

    monkeypatch.setattr("forecast.auto.ridge.Ridge.fit", fails)
    made, quantiles = median(season_and_noise(400), 24)
    assert np.isfinite(quantiles).all()
    failed = [e for e in made.leaderboard if e.left_out.startswith("failed")]
    assert failed
    assert all(entry.name.startswith(("ridge", "log-ridge")) for entry in failed)


def test_settings_that_leave_nothing_are_refused():
    with pytest.raises(UsageError, match="no candidate"):
        median(season_and_noise(200), 24, models=("informer",))
    with pytest.raises(UsageError, match="metric"):
        median(season_and_noise(200), 24, metric="mape")


def test_weights_fall_with_the_loss_and_laggards_have_none():
    truth = np.zeros(400)
    sign = np.where(np.arange(400) % 2 == 0, 1.0, -1.0)
    wrong = np.stack([sign, -sign, 1.1 * sign, 3 * sign])
    weights = blend_weights(Cells(wrong, truth, np.ones(400) / 400))
    assert weights[0] == weights[1]
    assert weights[2] == pytest.approx(weights[0] * 1.1**-12)
    assert weights[3] == 0


def test_series_weigh_by_their_own_errors_only_where_that_lasts():
    rng = np.random.default_rng(0)
    truth = np.zeros((8, 10, 4))
    good = 0.1 * rng.normal(size=truth.shape)
    bad = 2.0 + good
    kind = (np.arange(8) % 2 == 0)[:, None, None]
    ahead = np.stack([np.where(kind, good, bad), np.where(kind, bad, good)])
    weights, loss = np.full((8, 2), 0.5), np.ones(truth.shape)
    power, near = localised(ahead, truth, loss, np.arange(10), weights)
    assert power > 0
    assert (near[::2, 0] > 0.9).all()
    assert (near[1::2, 1] > 0.9).all()
    alike = rng.normal(size=(2, *truth.shape))
    assert localised(alike, truth, loss, np.arange(10), weights)[0] == 0


def test_few_misses_get_wider_tails_than_a_gaussian():
    rng = np.random.default_rng(0)
    few = measure(rng.normal(size=(1, 4, 5)), np.ones(1), scores.LEVELS, 4.0)
    assert few.shape.shape == (1, 19)
    assert few.shape[0, 0] == pytest.approx(-few.shape[0, -1])
    many = measure(rng.normal(size=(50, 40, 5)), np.ones(50), scores.LEVELS, 40.0)
    width = (many.scale[:, None, None] * many.profile[:, None] * many.shape.mean(0)).mean((0, 1))
    np.testing.assert_allclose(width[[0, MIDDLE, -1]], [-1.645, 0, 1.645], atol=0.1)
