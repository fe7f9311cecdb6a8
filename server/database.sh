#!/usr/bin/env bash
# The server's two databases and what is done with them. Runs in the mysql container, where its first start calls it
# without arguments, and on any machine that has the client programs of MySQL or MariaDB.
#
#   database.sh [init]              make both databases and their accounts, as root
#   database.sh ping NAME           log in
#   database.sh count NAME          rows of the tables that tell whether a database is in use
#   database.sh connections NAME    how many others are connected to it
#   database.sh dump NAME           write it to standard output, as it was at one moment
#   database.sh clear NAME          drop all its tables
#   database.sh load NAME           read a dump from standard input
#
# NAME is mlflow or optuna. Variables: MLFLOW_DB_PASSWORD and OPTUNA_DB_PASSWORD; where they differ from the default,
# MYSQL_HOST, MYSQL_TCP_PORT, MLFLOW_DB_NAME, MLFLOW_DB_USER, OPTUNA_DB_NAME, OPTUNA_DB_USER. For init:
# MYSQL_ROOT_PASSWORD.
set -euo pipefail

fail() {
    echo "error: database.sh: $1" >&2
    exit 1
}

account() { # sets what is asked as whom
    case "$1" in
        mlflow)
            database="${MLFLOW_DB_NAME:-mlflow}" user="${MLFLOW_DB_USER:-mlflow}"
            export MYSQL_PWD="${MLFLOW_DB_PASSWORD-}"
            ;;
        optuna)
            database="${OPTUNA_DB_NAME:-optuna}" user="${OPTUNA_DB_USER:-optuna}"
            export MYSQL_PWD="${OPTUNA_DB_PASSWORD-}"
            ;;
        *) fail "the name mlflow or optuna is needed, got '$1'" ;;
    esac
    options=(--user="$user" --host="${MYSQL_HOST:-127.0.0.1}" --port="${MYSQL_TCP_PORT:-3306}" --protocol=tcp)
    options+=(--default-character-set=utf8mb4)
}

ask() {
    mysql "${options[@]}" --batch --skip-column-names "$database" --execute="$1"
}

init() {
    local statements="" name
    for name in mlflow optuna; do
        account "$name"
        # It stands in an SQL statement and in a URL.
        [[ "$MYSQL_PWD" =~ ^[A-Za-z0-9_.-]{12,}$ ]] ||
            fail "${name^^}_DB_PASSWORD: at least 12 of A-Z a-z 0-9 _ . - are needed"
        # utf8mb4_bin: names that differ by case or accent stay different, as on sqlite.
        statements+="create database if not exists \`$database\` character set utf8mb4 collate utf8mb4_bin;"
        statements+="create user if not exists '$user'@'%' identified by '$MYSQL_PWD';"
        statements+="alter user '$user'@'%' identified by '$MYSQL_PWD';"
        statements+="grant all on \`$database\`.* to '$user'@'%';"
    done
    options=(--user=root)
    # While it initialises, the container's server listens on its socket alone.
    [[ -z "${MYSQL_HOST-}" ]] || options+=(--host="$MYSQL_HOST" --port="${MYSQL_TCP_PORT:-3306}" --protocol=tcp)
    # By standard input: a command line is seen by everybody on the machine.
    MYSQL_PWD="${MYSQL_ROOT_PASSWORD-}" mysql "${options[@]}" <<<"$statements"
}

count() {
    local table rows found
    found="$(ask "select table_name from information_schema.tables where table_schema = database()")"
    echo "tables $(grep -c . <<<"$found" || true)"
    for table in experiments runs logged_models registered_models model_versions studies trials; do
        if grep -qx "$table" <<<"$found"; then
            rows="$(ask "select count(*) from \`$table\`")"
            echo "$table $rows"
        fi
    done
}

dump() {
    # One transaction that sees the database as it was at its start: nobody has to stop working meanwhile. The line
    # that sed drops is understood by MariaDB's client alone.
    mysqldump "${options[@]}" --single-transaction --quick --skip-lock-tables --no-tablespaces --hex-blob \
        "$database" | LC_ALL=C sed '1,3{/^\/\*M\{0,1\}!999999/d}'
}

clear_tables() {
    local tables
    # MySQL cuts such a list at 1,024 bytes by default, and MLflow's tables fill more.
    tables="$(ask "set session group_concat_max_len = 1048576; select group_concat('\`', table_name, '\`') from information_schema.tables where table_schema = database()" |
        sed 's/^NULL$//')"
    [[ -z "$tables" ]] || ask "set foreign_key_checks = 0; drop table $tables"
}

verb="${1-init}"
[[ "$verb" == init ]] || account "${2-}"
case "$verb" in
    init) init ;;
    ping) ask "select 1" >/dev/null ;;
    count) count ;;
    connections)
        ask "select count(*) from information_schema.processlist where db = database() and id <> connection_id()"
        ;;
    dump) dump ;;
    clear) clear_tables ;;
    load)
        # In binary mode the client carries out no commands of its own: `system` and \! in a dump would run here.
        mysql "${options[@]}" --binary-mode --local-infile=0 "$database"
        ;;
    *) fail "unknown command '$verb'" ;;
esac
