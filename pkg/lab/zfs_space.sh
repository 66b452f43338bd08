# Runs in a new mount namespace, in which the lab's directory is still shared with
# the old one. Arguments: that directory; zfs-fuse, which has its socket, lock and
# cache in fixed places, reads a configuration of the machine's, and takes a
# dataset for mounted where another ZFS has mounted one of its name.
set -eu
dir=$1
# Nothing that is done here may show on the whole machine, but below the directory.
while read -r _ _ _ _ target _; do
	target=$(printf '%b' "$target")
	# What hides below another mount cannot be named, and needs not be.
	[ "$target" = "$dir" ] || mount --make-private "$target" 2>/dev/null || :
done </proc/self/mountinfo
while read -r _ target kind _; do
	case "$kind" in
	zfs | fuse.zfs) umount -l "$(printf '%b' "$target")" 2>/dev/null || : ;; # or it went with the one above
	esac
done </proc/self/mounts
for d in /run /var/lib/zfs /etc/zfs; do
	[ ! -d "$d" ] || mount -t tmpfs -o mode=0755 firedrill-lab-zfs "$d"
done
mkdir -p /run/lock
exec "$2" --no-daemon --no-kstat-mount --max-arc-size 128
