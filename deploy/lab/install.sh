#!/bin/sh
# Installs what the labs need from Debian's packages: PostgreSQL with its contrib
# modules and PgBouncer, ZFS in user space, the jq and zstd with which the mirror's
# tests read its files as anybody could, and Python for the README's example. The parts
# may be named, as in `install.sh postgres`; without a name it is all of them. It may
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

# missing prints the packages that the named parts lack.
missing() {
	for part in "$@"; do
		case $part in
		postgres) has_postgres || echo postgresql postgresql-contrib ;;
		pgbouncer) has_pgbouncer || echo pgbouncer ;;
		zfs) has_all zfs-fuse zfs zpool || echo zfs-fuse ;;
		jq | zstd) has_all "$part" || echo "$part" ;;
		python) has_venv || echo python3-venv ;;
		*)
			echo "install.sh: there is no part \"$part\": name postgres, pgbouncer, zfs, jq, zstd or python, or none for all" >&2
			exit 254
			;;
		esac
	done
}

[ $# -gt 0 ] || set -- postgres pgbouncer zfs jq zstd python
packages=$(missing "$@")
# shellcheck disable=SC2086,SC2116 # many words, and on one line
packages=$(echo $packages)
[ -n "$packages" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "install.sh: missing: $packages" >&2
	echo "install.sh: this user may not install packages; ask an administrator to run: apt-get install $packages" >&2
	exit 1
fi
if ! command -v apt-get >/dev/null 2>&1; then
	echo "install.sh: missing: $packages, and this is not Debian or Ubuntu (no apt-get)" >&2
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

echo "install.sh: installing $packages"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086 # a list of packages
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends $packages; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "install.sh: apt-get failed; the whole output is in $log" >&2
	exit 1
fi
rm -f "$log"
[ -z "$(missing "$@")" ] || {
	echo "install.sh: installed $packages, but their programs were not found" >&2
	exit 1
}
