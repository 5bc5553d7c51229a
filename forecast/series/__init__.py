"""Series: windows, covariates, intervals, scores, forecasts and streams of tables."""
