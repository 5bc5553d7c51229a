"""The model that `mlflow models serve`, `mlflow.pyfunc.load_model` and Spark run.

MLflow copies this file into each model and runs the copy there (its "models from code"), so it
stands on its own: whatever it needs of this package it imports when it is used.
"""

from __future__ import annotations

from typing import Any

# MLflow reads the types of `predict` while it runs, and warns of those that it cannot look up.
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class Forecaster(PythonModel):
    """Forecast from a table of past values, wide or long like the one trained on."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the artefact that lies beside this file."""
        from forecast import artefact, kinds  # noqa: PLC0415

        self.forecaster = artefact.load(context.artifacts["forecaster"])
        self.kind = kinds.of(self.forecaster.recipe.model)

    # MLflow writes "-> None" in the base class, and hands on whatever is returned.
    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return the forecast that follows the last row of each series in `model_input`.

        Args:
            context: of the model.
            model_input: past rows, at least the lookback of each series; behind them the rows of
                what is known in advance.
            params: `level`, of series the levels of prediction intervals [%].

        Raises:
            MlflowException: the table cannot be used; a server answers with its message.
        """
        import polars as pl  # noqa: PLC0415

        from forecast.errors import ForecastError  # noqa: PLC0415

        try:
            level = (params or {}).get("level")
            options = {} if level is None or not len(level) else {"level": [*map(float, level)]}
            forecast = self.kind.predict_frame(
                self.forecaster, pl.from_pandas(model_input), **options
            )
        except ForecastError as error:
            raise _bad(str(error)) from error
        # What a request holds comes from anywhere, and a stack trace is no answer to it.
        except Exception as error:
            raise _bad(f"The rows cannot be forecast: {type(error).__name__}: {error}.") from error
        texts = pl.selectors.exclude(pl.selectors.float())
        return forecast.with_columns(texts.cast(pl.String)).to_pandas()


def _bad(sentence: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(sentence)


set_model(Forecaster())
