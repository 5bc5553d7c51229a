#!/bin/sh
# Serve the store that `forecast` writes by default, on this machine alone: http://127.0.0.1:5000
set -eu

case "$(uname)" in
  Darwin) data="$HOME/Library/Application Support" ;;
  *) data="${XDG_DATA_HOME:-$HOME/.local/share}" ;;
esac
home="${FORECAST_HOME:-$data/forecast}"
mkdir -p "$home"

# No usage reports, and no job runners, which only MLflow's features for language models use.
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

exec mlflow server \
  --backend-store-uri "sqlite:///$home/mlflow.db" \
  --artifacts-destination "$home/mlartifacts" \
  --host 127.0.0.1 --port "${PORT:-5000}" --workers 1
