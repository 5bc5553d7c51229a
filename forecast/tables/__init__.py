"""Tables: text and Parquet to typed columns and regular series, and forecasts back to files."""
