#!/bin/sh
# Run by the image when the database is new: the role that Grafana reads the catalogue with.
set -eu
psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'SQL'
\getenv password READER_PASSWORD
CREATE ROLE reader LOGIN PASSWORD :'password' CONNECTION LIMIT 10;
GRANT pg_read_all_data TO reader;
ALTER ROLE reader SET default_transaction_read_only = on;
ALTER ROLE reader SET statement_timeout = '30s';
SQL
