#compdef forecast

_forecast_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _FORECAST_COMPLETE=complete_zsh forecast)
}

compdef _forecast_completion forecast
