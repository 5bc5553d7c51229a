#!/bin/sh
# Serve a store in Postgres with artifacts in S3, without Docker. Needs: pip install psycopg2-binary boto3
#
#   DATABASE_URL           postgresql+psycopg2://user:password@host:5432/database, driver named: which one
#                          is the default depends on the version of SQLAlchemy
#   BUCKET                 s3://bucket/folder; the bucket must be there
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION as for any S3 client
#   MLFLOW_S3_ENDPOINT_URL for an S3 that is not Amazon's, such as http://127.0.0.1:9000
#   HOST, PORT             where to listen; 127.0.0.1 and 5000 by default
set -eu

: "${DATABASE_URL:?is the address of the database: postgresql+psycopg2://user:password@host:5432/database}"
: "${BUCKET:?is where artifacts go: s3://bucket/folder}"

export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

# The server itself reads and writes the bucket, so that clients need no key to it.
exec mlflow server \
  --backend-store-uri "$DATABASE_URL" \
  --artifacts-destination "$BUCKET" \
  --host "${HOST:-127.0.0.1}" --port "${PORT:-5000}" --workers "${WORKERS:-2}"
