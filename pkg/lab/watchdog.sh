# Arguments: the lab's directory, "remove" or "keep", mount points.
dir=$1 after=$2
shift 2
trap '' INT TERM HUP PIPE
cat >/dev/null
tries=0
while [ "$tries" -lt 100 ]; do
	found=0
	for p in /proc/[0-9]*; do
		exe=$(readlink "$p/exe" 2>/dev/null) || continue
		exe=${exe%" (deleted)"}
		case "${exe##*/}" in
		postgres | pgbouncer | pg_*) ;;
		*) continue ;;
		esac
		where=$(readlink "$p/cwd" 2>/dev/null)/
		args=$(tr '\0' ' ' 2>/dev/null <"$p/cmdline")
		case "$where" in
		"$dir"/*) ;;
		*) case "$args" in *"$dir"/*) ;; *) continue ;; esac ;;
		esac
		kill -KILL "${p#/proc/}" 2>/dev/null
		found=1
	done
	[ "$found" = 1 ] || break
	tries=$((tries + 1))
	sleep 0.05
done
for f in "$dir"/*/*/postmaster.pid; do
	[ -f "$f" ] || continue
	id=$(sed -n '7s/.* //p' "$f")
	[ -n "$id" ] && ipcrm -m "$id" 2>/dev/null
done
for m in "$@"; do
	umount -l "$m" 2>/dev/null
done
[ "$after" = remove ] && rm -rf -- "$dir"
exit 0
