#!/bin/sh
# Installs what the labs need from Debian's packages: PostgreSQL with its contrib
# modules and PgBouncer, ZFS in user space, the jq and zstd with which the mirror's
# tests read its files as anybody could, and Python for the README's example. It may
# run again at any time, and says nothing when all is there. Without root it says what
# to ask for.
set -eu

# initdb and the others live outside of PATH on Debian.
has_postgres() {
	for d in /usr/lib/postgresql/*/bin; do
		[ -x "$d/initdb" ] && [ -x "$d/pg_rewind" ] && [ -x "$d/pg_amcheck" ] && return 0
	done
	command -v pg_rewind >/dev/null 2>&1 && command -v initdb >/dev/null 2>&1 && command -v pg_amcheck >/dev/null 2>&1
}

has_pgbouncer() {
	command -v pgbouncer >/dev/null 2>&1 || [ -x /usr/sbin/pgbouncer ]
}

# has_all reports whether each program is there. The directories of root's programs
# are not in everybody's PATH.
has_all() {
	for p in "$@"; do
		PATH="$PATH:/usr/sbin:/sbin" command -v "$p" >/dev/null 2>&1 || return 1
	done
}

# has_venv reports whether Python can make an environment with pip in it.
has_venv() {
	python3 -c 'import ensurepip, venv' >/dev/null 2>&1
}

missing=
has_postgres || missing="postgresql postgresql-contrib"
has_pgbouncer || missing="$missing pgbouncer"
has_all zfs-fuse zfs zpool || missing="$missing zfs-fuse"
has_all jq || missing="$missing jq"
has_all zstd || missing="$missing zstd"
has_venv || missing="$missing python3-venv"
missing=${missing# }
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "install.sh: missing: $missing" >&2
	echo "install.sh: this user may not install packages; ask an administrator to run: apt-get install $missing" >&2
	exit 1
fi
if ! command -v apt-get >/dev/null 2>&1; then
	echo "install.sh: missing: $missing, and this is not Debian or Ubuntu (no apt-get)" >&2
	echo "install.sh: install them with the system's own package manager; the programs must be in PATH" >&2
	exit 1
fi

# The packages would start a server of their own. The lab starts its own ones,
# so services are held back, unless somebody else's policy is in force already.
policy=/usr/sbin/policy-rc.d
made_policy=
undo() {
	[ -z "$made_policy" ] || rm -f "$policy"
}
trap undo EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	made_policy=yes
fi

echo "install.sh: installing $missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086 # a list of packages
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "install.sh: apt-get failed; the whole output is in $log" >&2
	exit 1
fi
rm -f "$log"
has_postgres && has_pgbouncer && has_all zfs-fuse zfs zpool jq zstd && has_venv || {
	echo "install.sh: installed $missing, but their programs were not found" >&2
	exit 1
}
