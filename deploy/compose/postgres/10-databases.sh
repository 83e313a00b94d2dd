#!/bin/bash
# One role and one database for each file `<name>_password`: the role owns its database and nothing else, and nobody
# else may connect to it. The image runs this once, when the data folder is new; it may be run again at any time, after
# a service has been added or a password changed.
set -euo pipefail

user=${POSTGRES_USER:-postgres}
PGPASSWORD=$(cat /run/secrets/superuser)
export PGPASSWORD

as_superuser() {
  psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "$user" --dbname postgres "$@"
}

# The databases that come with the server are nobody's business but the superuser's.
as_superuser --command 'REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC'

for file in /run/secrets/*_password; do
  name=$(basename "$file" _password)
  # psql reads the password from the file itself, for what stands on a command line is seen by every process.
  as_superuser --set name="$name" --set file="$file" <<'SQL'
\set password `cat :file`
SELECT format('CREATE ROLE %I', :'name') WHERE to_regrole(:'name') IS NULL \gexec
ALTER ROLE :"name" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name')
  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
