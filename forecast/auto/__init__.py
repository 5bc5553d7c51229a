"""The best forecast for a table: closed forms, chosen and blended on validation."""
